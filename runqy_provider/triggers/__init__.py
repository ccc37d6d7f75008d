# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Triggers only wait: a trigger may run twice, at once, and start again at any time."""
