# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Results in object stores: one sink, one source, and one store for each kind."""
