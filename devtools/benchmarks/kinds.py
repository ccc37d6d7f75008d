# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The kinds of waits that are compared: ours, the peers, and bare floors."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from devtools.benchmarks.servers import CONN_ID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: By kind: its name in tables.
NAMES = {
    "floor": "bare: a trigger that does nothing",
    "ours": "RunqyOperator, webhook",
    "ours_jobs": "RunqyOperator, webhook, its job observed",
    "ours_s3": "RunqyOperator, s3:// without a receiver",
    "redis": "peer: AwaitMessageTrigger, every 0.5 s",
    "s3": "peer: S3KeyTrigger, every 5 s",
}


class Floor(BaseTrigger):
    """A trigger that waits for something that never comes."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path, and no arguments."""
        return f"devtools.benchmarks.kinds.{type(self).__name__}", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait."""
        await asyncio.get_running_loop().create_future()
        yield TriggerEvent("never")  # type: ignore[no-untyped-call] # Airflow's


def make(kind: str, name: str) -> Any:
    """Return one trigger of a kind, which waits for what has this name."""
    if kind == "floor":
        return Floor()  # type: ignore[no-untyped-call] # Airflow's
    if kind == "bare":
        from devtools.benchmarks.bare_trigger import BareTrigger  # noqa: PLC0415 - heavy

        return BareTrigger(name)
    if kind == "redis":
        from airflow.providers.redis.triggers.redis_await_message import (  # noqa: PLC0415 - heavy
            AwaitMessageTrigger,
        )

        return AwaitMessageTrigger(channels=[name], poll_interval=0.5)
    if kind == "s3":
        from airflow.providers.amazon.aws.triggers.s3 import (  # noqa: PLC0415 - heavy
            S3KeyTrigger,
        )

        return S3KeyTrigger(
            bucket_name="results",
            bucket_key=f"waits/{name}",
            aws_conn_id="aws_default",
            poke_interval=5,
        )
    from runqy_provider.triggers.delivery import (  # noqa: PLC0415 - heavy
        DeliveryTrigger,
    )

    return DeliveryTrigger(
        runqy_conn_id=CONN_ID,
        delivery_id=name,
        sink="s3://results/waits" if kind == "ours_s3" else "webhook",
        deadline=time.time() + 3600,
        job_id=f"job-{name}" if kind == "ours_jobs" else None,
        runqy_queue="idle.default" if kind == "ours_jobs" else None,
    )
