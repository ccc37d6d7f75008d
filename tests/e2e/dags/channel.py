"""A DAG that starts when a delivery arrives on a channel."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.triggers.channel import DeliveryChannelTrigger

TRIGGER = DeliveryChannelTrigger("transcripts", "good")
TRANSCRIPTS = Asset(
    "transcripts", watchers=[AssetWatcher(name="deliveries", trigger=TRIGGER)]
)


@dag(schedule=[TRANSCRIPTS])
def channel() -> None:
    """Read what has arrived."""

    @task
    def read() -> list[Any]:
        """Return the results."""
        hook = RunqyResultHook("good")
        return [
            hook.read(delivery["reference"]).json()
            for delivery in hook.take("transcripts")
        ]

    read()


channel()
