# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The receiver: the HTTP endpoint of the inbox. It does not import Airflow."""
