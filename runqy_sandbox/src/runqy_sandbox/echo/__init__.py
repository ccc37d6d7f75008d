# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The task code of the queue `echo`: what the sandbox serves if it is told nothing."""
