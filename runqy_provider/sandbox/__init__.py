# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deprecated: the sandbox is the package ``runqy_sandbox`` now."""
