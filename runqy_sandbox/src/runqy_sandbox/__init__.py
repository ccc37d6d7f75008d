# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for runqy on one machine, for demos and tests; it needs no Airflow.

The stand-in behaves as a real runqy was recorded to behave. A *job* is a *task* in the
names that runqy's HTTP API and asynq, its storage in Redis, have for it.
"""

__version__ = "0.3.0"
