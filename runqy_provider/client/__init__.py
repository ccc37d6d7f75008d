# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The client of runqy: requests to its HTTP API, and reads of its Redis."""
