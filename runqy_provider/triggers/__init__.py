# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Triggers only wait: one may run twice at the same time, and restart at any time."""
