# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Many jobs at once: while they wait, they hold no worker slot."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task

from runqy_provider.operators.runqy import RunqyOperator


@dag(schedule=None, tags=["runqy"])
def runqy_fan_out() -> None:
    """Resize all scenes."""
    # [START fan_out]

    @task
    def scenes() -> list[dict[str, Any]]:
        """List the payloads."""
        return [{"scene": scene, "seconds": 1} for scene in range(6)]

    resize = RunqyOperator.partial(
        task_id="resize", runqy_queue="resize", sink="webhook"
    ).expand(payload=scenes())
    # [END fan_out]

    @task
    def count(results: list[dict[str, Any]]) -> int:
        """Use all results."""
        return len({result["scene"] for result in results})

    count(resize.output)


runqy_fan_out()
