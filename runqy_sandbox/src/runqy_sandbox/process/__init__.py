# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Child processes, the watchdog that ends them, and ports on the loopback interface."""
