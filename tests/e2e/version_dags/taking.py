"""A DAG that deliveries on a channel start."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.triggers.channel import DeliveryChannelTrigger

BURSTS = Asset(
    "bursts",
    watchers=[
        AssetWatcher(
            name="deliveries", trigger=DeliveryChannelTrigger("bursts", "good")
        )
    ],
)


@dag(schedule=[BURSTS], max_active_runs=2)
def taking() -> None:
    """Take what is on a channel, by two tasks that share it."""

    # On a loaded machine, Airflow cannot start each task in time.
    @task(retries=5, retry_delay=timedelta(seconds=1))
    def take(most: int) -> list[Any]:
        hook = RunqyResultHook("good")
        taken = hook.take("bursts", most=most)
        return [hook.read(delivery["reference"]).json() for delivery in taken]

    take.expand(most=[5, 1000])


taking()
