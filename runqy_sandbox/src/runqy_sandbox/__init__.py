# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The outside world on one laptop, as it was seen to behave: no Airflow in here.

A stand-in for demos, tests and your own DAG tests. It is not a second runqy.
"""

__version__ = "0.1.0"
