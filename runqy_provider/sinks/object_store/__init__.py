# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Object stores: one sink, one source for waiters, and a store for each kind."""
