# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The receiver is the HTTP door of the inbox. It never imports Airflow."""
