# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Faults, caused for real while jobs are in flight, and what comes of them."""
