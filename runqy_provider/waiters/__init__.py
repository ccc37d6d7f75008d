# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Waiting for deliveries: one loop polls one source for any number of waits."""
