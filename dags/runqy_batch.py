# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""One task with many jobs, and one task that reads all their results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import dag, task

from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.operators.runqy_batch import RunqyBatchOperator

if TYPE_CHECKING:
    from collections.abc import Iterator


@dag(schedule=None, tags=["runqy"])
def runqy_batch() -> None:
    """Resize all scenes, twice."""
    # [START batch]
    resize = RunqyBatchOperator(
        task_id="resize",
        runqy_queue="resize",
        payloads=[{"scene": scene, "seconds": 0} for scene in range(50)],
        sink="webhook",
        returns="reference",
    )

    @task
    def count(manifest: Any) -> int:
        """Read the results one by one."""
        return sum(1 for result in RunqyResultHook().read_batch(manifest))

    count(resize.output)
    # [END batch]

    # [START taskflow]
    @task.runqy_batch(runqy_queue="resize", sink="webhook")
    def resize_again(scenes: int) -> Iterator[dict[str, Any]]:
        """Make the payloads."""
        for scene in range(scenes):
            yield {"scene": scene, "seconds": 0}

    resize_again(20)
    # [END taskflow]


runqy_batch()
