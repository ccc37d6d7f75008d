# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A job whose result is an image: it goes to S3, and XCom holds a reference to it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from runqy_provider.operators.runqy import RunqyOperator


@dag(schedule=None, tags=["runqy"])
def runqy_s3_bytes() -> None:
    """Render an image, and read its size."""
    # [START s3]
    render = RunqyOperator(
        task_id="render",
        runqy_queue="render",  # means render.default
        payload={"side": 200},
        sink="s3://results/renders",
        delivery_timeout=timedelta(minutes=10),
    )
    # [END s3]

    # [START read]
    @task
    def inspect(reference: dict[str, Any]) -> dict[str, Any]:
        """Read the image as a stream: XCom has only a reference to it."""
        from runqy_provider.hooks.result import RunqyResultHook  # noqa: PLC0415

        with RunqyResultHook().read(reference).stream() as image:
            head = image.read(24)
        return {"width": int.from_bytes(head[16:20], "big"), "uri": reference["uri"]}

    # [END read]

    inspect(render.output)


runqy_s3_bytes()
