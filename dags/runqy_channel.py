# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Event-driven: a DAG that starts when a delivery arrives on a channel."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.triggers.channel import DeliveryChannelTrigger

# [START channel]
transcripts = Asset(
    "runqy_transcripts",
    watchers=[
        AssetWatcher(
            name="deliveries", trigger=DeliveryChannelTrigger(channel="transcripts")
        )
    ],
)


@dag(schedule=[transcripts], tags=["runqy"])
def runqy_channel() -> None:
    """Read each transcript that arrives, whoever enqueued its job."""

    @task(retries=2)
    def read() -> list[Any]:
        """Return the results of all deliveries that no run has taken yet."""
        hook = RunqyResultHook()
        return [
            hook.read(delivery["reference"]).json()
            for delivery in hook.take("transcripts")
        ]

    read()


runqy_channel()
# [END channel]
