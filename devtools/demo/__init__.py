# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The demo runs the example DAGs on a real Airflow and the sandbox."""
