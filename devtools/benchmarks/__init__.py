# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks measure before we claim; each prints a table, with its peer beside it."""
