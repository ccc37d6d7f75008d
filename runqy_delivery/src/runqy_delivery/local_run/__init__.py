# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Run the task code of one job on this machine, without runqy and Airflow."""
