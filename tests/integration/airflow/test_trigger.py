"""DeliveryTrigger: what it carries, and what a hundred of them cost a triggerer."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from airflow.triggers.base import BaseTrigger
from redis import Redis

from runqy_delivery import Delivery
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.inbox import callback_url as capability
from runqy_provider.inbox import keys
from runqy_provider.triggers.delivery import DeliveryTrigger
from runqy_provider.waiters.registry import close_waiters
from tests.support.triggerer_process import Triggerer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.stack import World

TRIGGERS = [
    DeliveryTrigger(
        runqy_conn_id="c",
        delivery_id="d",
        sink="s3://bucket/p",
        deadline=5.5,
        not_before=1.5,
        job_id="j",
    ),
    DeliveryTrigger(runqy_conn_id="c", delivery_id="d", sink="webhook", deadline=1.0),
]


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_trigger_is_the_same_after_its_way_through_the_database(
    trigger: DeliveryTrigger,
) -> None:
    from airflow.sdk.serde import deserialize, serialize

    path, kwargs = trigger.serialize()
    kept = deserialize(json.loads(json.dumps(serialize(kwargs))))
    again = DeliveryTrigger(**kept)

    assert path == "runqy_provider.triggers.delivery.DeliveryTrigger"
    assert again.serialize() == trigger.serialize()
    assert not {"task_id", "queue"} & set(kwargs)


def test_every_trigger_class_is_tested_here() -> None:
    ours = {kind for kind in BaseTrigger.__subclasses__() if "runqy" in kind.__module__}
    assert ours == {DeliveryTrigger}


def test_airflow_may_set_its_own_fields() -> None:
    from types import SimpleNamespace

    trigger = TRIGGERS[0]
    before = trigger.serialize()
    trigger.task_instance = SimpleNamespace(task_id="another word")  # type: ignore[assignment]

    assert trigger.serialize() == before


def _trigger(n: int, sink: str, seconds: float = 60) -> DeliveryTrigger:
    return DeliveryTrigger(
        runqy_conn_id="runqy_default",
        delivery_id=f"many-{n}",
        sink=sink,
        deadline=time.time() + seconds,
    )


def _deliver(world: World, delivery_id: str) -> None:
    extra = world.connections["runqy_default"]["extra"]
    url = capability.url(
        extra["callback_url"],
        extra["callback_secret"],
        "runqy_default",
        delivery_id,
        int(time.time()) + 60,
    )
    body = Delivery(delivery_id, result=1).to_json()
    httpx.post(url, content=body).raise_for_status()


def test_a_hundred_waits_are_one_subscription_and_two_connections_fetched(
    world: World, tmp_path: Path
) -> None:
    redis = Redis.from_url(world.sandbox.redis_url)
    triggers = {n: _trigger(n, "webhook") for n in range(100)}
    channel = keys.arrivals("runqy_default")
    with Triggerer(tmp_path, triggers, world.connections) as triggerer:
        triggerer.run_until(lambda: redis.pubsub_numsub(channel)[0][1])
        for n in range(100):
            _deliver(world, f"many-{n}")
        subscribed = [c for c in redis.client_list() if int(c["sub"])]
        triggerer.run_until(lambda: len(triggerer.events) == 100)
        events, failures = triggerer.events, triggerer.failures
        asked = triggerer.asked
    redis.close()

    assert failures == {}
    assert {event["event"] for event in events.values()} == {"arrived"}
    assert len(subscribed) == 1
    assert sorted(asked) == ["redis_default", "runqy_default"]


def test_a_hundred_waits_in_a_bucket_are_one_loop(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The S3 endpoint's own log is the witness: one LIST a sweep, for all of them."""
    monkeypatch.setenv("AIRFLOW__RUNQY__OBJECT_SWEEP_SECONDS", "0.5")
    connections = json.loads(json.dumps(world.connections))
    connections["runqy_default"]["extra"].pop("callback_secret")
    log = world.sandbox.s3.log
    import boto3

    aws = connections["aws_default"]
    client = boto3.client(
        "s3",
        endpoint_url=world.sandbox.s3_url,
        aws_access_key_id=aws["login"],
        aws_secret_access_key=aws["password"],
        region_name="us-east-1",
    )
    triggers = {n: _trigger(n, "s3://results/hundred") for n in range(100)}

    def lists() -> int:
        return log.read_text(errors="replace").count("prefix=hundred/")

    with Triggerer(tmp_path, triggers, connections) as triggerer:
        triggerer.run_until(lambda: lists() >= 1)
        started, before = time.monotonic(), lists()
        triggerer.run_until(lambda: lists() >= before + 4)
        took = time.monotonic() - started
        for n in range(100):
            client.put_object(Bucket="results", Key=f"hundred/many-{n}", Body=b"1")
        triggerer.run_until(lambda: len(triggerer.events) == 100)
        asked, failures = triggerer.asked, triggerer.failures

    assert failures == {}
    assert took >= 1.4, "four sweeps of all waits, at half a second each"
    words = log.read_text(errors="replace")
    assert "prefix=hundred/many" not in words, "no wait asked for itself alone"
    assert sorted(asked) == ["aws_default", "redis_default", "runqy_default"]


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runqy_provider.triggers.delivery.ACCESS_PATIENCE", 0.5)
    monkeypatch.setattr("runqy_provider.triggers.delivery.ACCESS_PAUSE", 0.1)


@pytest.mark.usefixtures("short_patience")
def test_a_trigger_whose_connection_is_gone_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_RUNQY_DEFAULT", raising=False)
    monkeypatch.setattr("runqy_provider.context._remembered", {})
    trigger = _trigger(1, "webhook")
    event = asyncio.run(_first_event(trigger))

    assert (event["event"], event["error"]) == ("error", "Misconfigured")
    assert "runqy_default" in event["message"]


@pytest.mark.usefixtures("connect")
@pytest.mark.parametrize("name", ["RUNQY_DEFAULT", "REDIS_DEFAULT"])
def test_a_connection_that_is_not_found_for_a_moment_ends_no_wait(
    name: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow says "not found", too, where it could not ask."""
    monkeypatch.setattr("runqy_provider.triggers.delivery.ACCESS_PAUSE", 0.1)
    monkeypatch.setattr("runqy_provider.context.DOUBT_TTL", 0.0)
    there = os.environ[f"AIRFLOW_CONN_{name}"]
    monkeypatch.delenv(f"AIRFLOW_CONN_{name}")
    trigger = _trigger(f"moment-{time.time_ns()}", "webhook")

    async def scenario() -> dict[str, Any]:
        waiting = asyncio.create_task(_first_event(trigger))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", there)
        await asyncio.to_thread(_deliver, world, trigger.delivery_id)
        return await waiting

    assert asyncio.run(scenario())["event"] == "arrived"


async def _first_event(trigger: DeliveryTrigger) -> dict[str, Any]:
    try:
        async for event in trigger.run():
            return dict(event.payload)
        raise AssertionError("the trigger ended without an event")
    finally:
        await close_waiters()


def test_an_error_of_the_sink_is_an_event_with_its_name(
    world: World, tmp_path: Path
) -> None:
    connections: Any = json.loads(json.dumps(world.connections))
    connections["runqy_default"]["extra"].pop("callback_secret")
    triggers = {1: _trigger(1, "s3://no-bucket-here")}
    with Triggerer(tmp_path, triggers, connections) as triggerer:
        triggerer.run_until(lambda: triggerer.events)
        event = triggerer.events["1"]

    assert (event["event"], event["error"]) == ("error", "NotThere")
    assert "s3://no-bucket-here" in event["message"]


#: What Airflow says of a task whose trigger it takes away, look by look (its state, and
#: the job in its XCom), and whether its job is to be deleted.
MINE, OTHER = "mine", "other"
TAKEN_AWAY = {
    "marked failed": ([("failed", MINE)], True),
    "marked success": ([("success", MINE)], True),
    "run deleted": ([("deleted", None)], True),
    "triggerer stalled": ([("deferred", MINE)], False),
    "cleared, next try waits": ([("deferred", OTHER)], True),
    "cleared, next try starts": (
        [(None, MINE), ("queued", MINE), ("running", None), ("running", OTHER)],
        True,
    ),
    "resumed by another triggerer": ([("running", MINE), ("success", MINE)], True),
    "retry waits for the same job": ([("running", MINE), ("deferred", MINE)], False),
}


def test_a_job_is_deleted_only_where_nobody_waits_for_it(
    world: World, connect: Callable[..., Any], tmp_path: Path
) -> None:
    redis = Redis.from_url(world.sandbox.redis_url)
    triggers, tasks, jobs = {}, {}, {}
    with RunqyHook() as hook:
        for n, (name, (said, _)) in enumerate(TAKEN_AWAY.items()):
            jobs[name] = hook.enqueue("idle", {"n": n}).job_id
            ids = {MINE: jobs[name], OTHER: "another", None: None}
            tasks[f"t{n}"] = [(state, ids[job]) for state, job in said]
            triggers[n] = DeliveryTrigger(
                runqy_conn_id="runqy_default",
                delivery_id=f"kill-{n}",
                sink="webhook",
                deadline=time.time() + 60,
                job_id=jobs[name],
                runqy_queue="idle.default",
                delete_on_kill=True,
            )
    channel = keys.arrivals("runqy_default")
    wanted = {name: is_deleted for name, (_, is_deleted) in TAKEN_AWAY.items()}

    def deleted() -> dict[str, bool]:
        return {
            name: not redis.exists(f"asynq:{{idle.default}}:t:{job_id}")
            for name, job_id in jobs.items()
        }

    with Triggerer(tmp_path, triggers, world.connections, tasks) as triggerer:
        triggerer.run_until(lambda: redis.pubsub_numsub(channel)[0][1])
        (tmp_path / "drop").touch()
        triggerer.run_until(lambda: deleted() == wanted)
        # Those that are to stay have had their looks by now, or have them soon.
        until = time.monotonic() + 3
        triggerer.run_until(lambda: time.monotonic() > until)
        assert deleted() == wanted
    redis.close()


def test_a_trigger_that_has_fired_deletes_nothing() -> None:
    trigger = TRIGGERS[0]
    trigger.delete_on_kill, trigger._is_done = True, True
    asyncio.run(trigger.on_kill())  # would fail: there is no task instance to ask for
