# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The stand-in for runqy-worker: it takes jobs and has task processes run them."""
