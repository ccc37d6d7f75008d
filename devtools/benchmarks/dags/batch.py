# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""One task with many jobs; conf has ``payloads``, the path of a file."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from runqy_provider.operators.runqy_batch import RunqyBatchOperator

with DAG("batch", schedule=None, max_active_runs=1):
    RunqyBatchOperator(
        task_id="batch",
        runqy_queue="idle",
        payloads="file://{{ dag_run.conf['payloads'] }}",
        sink="webhook",
        returns="reference",
        retries=5,
        retry_delay=timedelta(seconds=1),
    )
