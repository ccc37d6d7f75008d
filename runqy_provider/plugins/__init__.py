# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Plugins are where Airflow and FastAPI meet; nothing is built before its time."""
