# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The inbox stores pushed deliveries until they are read, without Airflow."""
