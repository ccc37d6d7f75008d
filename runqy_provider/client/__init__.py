# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The runqy server: what it is asked, how it answers, and where it keeps its jobs."""
