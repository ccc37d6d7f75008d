# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""TaskFlow: a function returns the payload, and calling it gives the job's result."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task


@dag(schedule=None, tags=["runqy"])
def runqy_taskflow() -> None:
    """Resize three scenes, and add up their widths."""
    # [START taskflow]

    @task.runqy(runqy_queue="resize")
    def resize(scene: int) -> dict[str, Any]:
        """Return the payload of the job."""
        return {"scene": scene, "seconds": 0.1}

    @task
    def total(results: list[dict[str, Any]]) -> int:
        """Use the results of the jobs."""
        return sum(result["width"] for result in results)

    total(resize.expand(scene=[1, 2, 3]))
    # [END taskflow]


runqy_taskflow()
