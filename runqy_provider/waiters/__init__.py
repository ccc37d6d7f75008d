# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A wait costs a dict entry: one loop looks for all waits of one place."""
