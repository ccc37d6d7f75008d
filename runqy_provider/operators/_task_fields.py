# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What the operators for one job and for many read from their task, and set in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import Asset

from runqy_provider.client.job_options import JobOptions
from runqy_provider.jobs.deferral import in_seconds
from runqy_provider.models import DELIVERY_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

    from runqy_provider.models import Reference
    from runqy_provider.operators.runqy import RunqyOperator
    from runqy_provider.operators.runqy_batch import RunqyBatchOperator


def job_options(task: RunqyOperator | RunqyBatchOperator) -> JobOptions:
    """Return what a task asks for each of its jobs.

    Raises:
        Misconfigured: The value of an argument is not valid.
    """
    return JobOptions(
        in_seconds(task.job_timeout),
        task.max_retry,
        in_seconds(task.active_timeout),
        in_seconds(task.ttl_completed),
    )


def add_to_outlets(
    task: RunqyOperator | RunqyBatchOperator, context: Context, reference: Reference
) -> None:
    """Add the reference to a result to the asset events of a task's outlets."""
    for outlet in task.outlets:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra[DELIVERY_KEY] = reference.to_xcom()
