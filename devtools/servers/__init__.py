# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Real servers that tests, faults and benchmarks start for themselves."""
