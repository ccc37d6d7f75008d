# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""runqy for Airflow: enqueue jobs, wait for their delivery, read the result."""

__version__ = "0.3.0"
