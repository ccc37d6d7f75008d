# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Airflow plugins: the receiver, as part of Airflow's API server."""
