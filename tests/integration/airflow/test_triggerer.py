"""What a triggerer with many waits survives, in a real process of Airflow's."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from redis import Redis

from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.inbox import keys
from runqy_provider.triggers.delivery import DeliveryTrigger
from tests.support.triggerer_process import Triggerer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.stack import Stack

#: How many waits there are, half of them at each sink, and how many are cancelled.
WAITS, CANCELLED = 100, 50


def _waits(
    count: int, sinks: list[str], name: str
) -> tuple[dict[int, DeliveryTrigger], dict[str, Any]]:
    """Return triggers for jobs that no worker takes, and the states of their tasks."""
    triggers, tasks = {}, {}
    with RunqyHook() as hook:
        for n in range(count):
            job_id = hook.enqueue("idle", {"n": n}).job_id
            tasks[f"t{n}"] = [("deferred", job_id)]
            triggers[n] = DeliveryTrigger(
                runqy_conn_id="runqy_default",
                delivery_id=f"{name}-{n}",
                sink=sinks[n % len(sinks)],
                deadline=time.time() + 600,
                job_id=job_id,
                runqy_queue="idle.default",
                delete_abandoned=True,
            )
    return triggers, tasks


def _client(stack: Stack) -> Any:
    aws = stack.connections["aws_default"]
    return boto3.client(
        "s3",
        endpoint_url=stack.sandbox.s3_url,
        aws_access_key_id=aws["login"],
        aws_secret_access_key=aws["password"],
        region_name="us-east-1",
    )


@pytest.mark.usefixtures("short_intervals")
def test_triggerer_fifty_cancellations_keep_the_other_waits(
    stack: Stack, connect: Callable[..., Any], tmp_path: Path
) -> None:
    """Each cancelled trigger asks Airflow whether its job may be deleted."""
    connections = connect(without=("callback_secret",))
    triggers, tasks = _waits(
        WAITS, ["s3://results/kept", "s3://results/kept/b"], "kept"
    )
    cancelled = list(range(0, WAITS, WAITS // CANCELLED))
    for n in cancelled:
        tasks[f"t{n}"] = [("failed", triggers[n].job.job_id)]
    kept = sorted(set(triggers) - set(cancelled))
    client = _client(stack)

    def are_decided(triggerer: Triggerer, least: int) -> bool:
        return sum(f"t{n}" in triggerer.reads for n in cancelled) >= least

    with Triggerer(tmp_path, triggers, connections, tasks) as triggerer:
        triggerer.run_until(lambda: triggerer.asked)
        # Some of them while they still fetch their connection.
        for wave in range(0, CANCELLED, 10):
            triggerer.drop(cancelled[: wave + 10])
            triggerer.run_until(functools.partial(are_decided, triggerer, wave))
        for n in kept:
            folder = triggers[n].job.sink.removeprefix("s3://results/")
            client.put_object(Bucket="results", Key=f"{folder}/kept-{n}", Body=b"1")
        triggerer.run_until(lambda: len(triggerer.events) == len(kept))
        failures, events = triggerer.failures, triggerer.events
        triggerer.run_until(lambda: not _pending(stack, triggers, cancelled))
        pending = _pending(stack, triggers, kept)

    assert failures == {}
    assert sorted(map(int, events)) == kept
    assert {event["kind"] for event in events.values()} == {"arrived"}
    assert pending == kept


def _pending(
    stack: Stack, triggers: dict[int, DeliveryTrigger], numbers: list[int]
) -> list[int]:
    """Return those whose job has not been deleted."""
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        return [
            n
            for n in numbers
            if redis.exists(f"asynq:{{idle.default}}:t:{triggers[n].job.job_id}")
        ]


def test_triggerer_that_stops_deletes_no_job(
    stack: Stack, connect: Callable[..., Any], tmp_path: Path
) -> None:
    """Another triggerer takes these waits over."""
    connections = connect()
    triggers, tasks = _waits(20, ["webhook"], "stopped")
    channel = keys.arrivals("runqy_default")
    with (
        Redis.from_url(stack.sandbox.redis_url) as redis,
        Triggerer(tmp_path, triggers, connections, tasks) as triggerer,
    ):
        triggerer.run_until(lambda: redis.pubsub_numsub(channel)[0][1])
        stopped = triggerer.stop()

    assert stopped["exit_code"] is not None
    assert _pending(stack, triggers, list(triggers)) == list(triggers)
