# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The tests on several versions of Airflow, each in an environment of its own."""
