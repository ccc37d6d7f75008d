# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""asynq, the library with which runqy stores jobs in Redis; it calls a job a task."""
