# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Hooks speak to runqy and to the places of results, with Airflow's connections."""
