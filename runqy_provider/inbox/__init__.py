# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The inbox keeps pushed deliveries until they are read. It never imports Airflow."""
