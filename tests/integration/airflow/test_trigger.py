"""DeliveryTrigger: its serialization, and the load of a hundred of them."""

from __future__ import annotations

import asyncio
import json
import os
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from airflow.triggers.base import BaseTrigger
from redis import Redis

from runqy_delivery import Delivery
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.inbox import callback_url, keys
from runqy_provider.jobs import waiting
from runqy_provider.settings import aload_settings
from runqy_provider.triggers.batch import BatchTrigger
from runqy_provider.triggers.delivery import DeletingTrigger, DeliveryTrigger
from runqy_provider.waiters.waiter import close_waiters
from tests.support.caches import clear_settings
from tests.support.triggerer_process import Triggerer
from tests.support.versions import as_sent, through_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runqy_provider.settings import Settings
    from tests.support.stack import Stack

TRIGGERS: list[BaseTrigger] = [
    DeliveryTrigger(
        runqy_conn_id="c",
        delivery_id="d",
        sink="s3://bucket/p",
        deadline=5.5,
        not_before=1.5,
        job_id="j",
    ),
    DeliveryTrigger(runqy_conn_id="c", delivery_id="d", sink="webhook", deadline=1.0),
    BatchTrigger(
        runqy_conn_id="c",
        batch={"batch_id": "b", "total": 1},
        until=3,
        most_failed=0,
        deadline=5.5,
        heartbeat=2.5,
        delete_abandoned=True,
    ),
]

#: The class paths that are in users' databases.
PATHS = {
    DeliveryTrigger: "runqy_provider.triggers.delivery.DeliveryTrigger",
    BatchTrigger: "runqy_provider.triggers.batch.BatchTrigger",
}


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_trigger_serialized_through_database_is_unchanged(
    trigger: BaseTrigger,
) -> None:
    path, kwargs = trigger.serialize()
    again = type(trigger)(**through_database(as_sent(kwargs)))

    assert path == PATHS[type(trigger)]
    assert again.serialize() == trigger.serialize()
    assert not {"task_id", "queue"} & set(kwargs)


def _direct(base: Any) -> set[Any]:
    """Return our triggers that are not made for jobs that are deleted."""
    found = {kind for kind in base.__subclasses__() if "runqy" in kind.__module__}
    return found - {DeletingTrigger}


def test_trigger_classes_are_all_tested_here() -> None:
    ours = {*DeletingTrigger.__subclasses__(), *_direct(BaseTrigger)}
    assert ours == set(PATHS)


def test_trigger_fields_set_by_airflow_are_not_serialized() -> None:
    trigger = DeliveryTrigger(**TRIGGERS[0].serialize()[1])
    ti: Any = SimpleNamespace(task_id="other")
    trigger.task_instance = ti

    assert trigger.serialize() == TRIGGERS[0].serialize()


def _trigger(name: int | str, sink: str) -> DeliveryTrigger:
    return DeliveryTrigger(
        runqy_conn_id="runqy_default",
        delivery_id=f"many-{name}",
        sink=sink,
        deadline=time.time() + 600,
    )


def _deliver(stack: Stack, delivery_id: str) -> None:
    extra = stack.connections["runqy_default"]["extra"]
    url = callback_url.url(
        extra["callback_url"],
        extra["callback_secret"],
        "runqy_default",
        delivery_id,
        int(time.time()) + 60,
    )
    body = Delivery(delivery_id, result=1).to_json()
    httpx.post(url, content=body).raise_for_status()


def test_triggers_hundred_webhook_waits_share_one_subscription(
    stack: Stack, tmp_path: Path
) -> None:
    redis = Redis.from_url(stack.sandbox.redis_url)
    triggers = {n: _trigger(n, "webhook") for n in range(100)}
    channel = keys.arrivals("runqy_default")
    with Triggerer(tmp_path, triggers, stack.connections) as triggerer:
        triggerer.run_until(lambda: redis.pubsub_numsub(channel)[0][1])
        for n in range(100):
            _deliver(stack, f"many-{n}")
        subscribed = [c for c in redis.client_list() if int(c["sub"])]
        triggerer.run_until(lambda: len(triggerer.events) == 100)
        events, failures = triggerer.events, triggerer.failures
        asked = triggerer.asked
    redis.close()

    assert failures == {}
    assert {event["kind"] for event in events.values()} == {"arrived"}
    assert len(subscribed) == 1
    assert sorted(asked) == ["redis_default", "runqy_default"]


def test_triggers_hundred_bucket_waits_share_one_listing(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The log of the S3 endpoint must show one LIST per poll for all waits."""
    monkeypatch.setenv("AIRFLOW__RUNQY__OBJECT_SWEEP_SECONDS", "0.5")
    connections = json.loads(json.dumps(stack.connections))
    connections["runqy_default"]["extra"].pop("callback_secret")
    log = stack.sandbox.s3.log
    import boto3

    aws = connections["aws_default"]
    client = boto3.client(
        "s3",
        endpoint_url=stack.sandbox.s3_url,
        aws_access_key_id=aws["login"],
        aws_secret_access_key=aws["password"],
        region_name="us-east-1",
    )
    triggers = {n: _trigger(n, "s3://results/hundred") for n in range(100)}

    def lists() -> int:
        return log.read_text(errors="replace").count("prefix=hundred/")

    with Triggerer(tmp_path, triggers, connections) as triggerer:
        triggerer.run_until(lambda: triggerer.running == len(triggers))
        # The next polls come while triggers are still being started.
        first = lists()
        triggerer.run_until(lambda: lists() >= first + 8)
        started, before = time.monotonic(), lists()
        # A trigger that starts alone is polled alone.
        read = len(log.read_text(errors="replace"))
        triggerer.run_until(lambda: lists() >= before + 4)
        took = time.monotonic() - started
        for n in range(100):
            client.put_object(Bucket="results", Key=f"hundred/many-{n}", Body=b"1")
        triggerer.run_until(lambda: len(triggerer.events) == 100)
        asked, failures = triggerer.asked, triggerer.failures

    assert failures == {}
    assert took >= 1.4, "four polls for all waits, half a second apart"
    requests = log.read_text(errors="replace")[read:]
    assert "prefix=hundred/many" not in requests, "no wait polled for itself alone"
    assert sorted(asked) == ["aws_default", "redis_default", "runqy_default"]


@pytest.fixture
def short_connection_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "CONNECTION_RETRY_FOR", 0.5)
    monkeypatch.setattr(waiting, "CONNECTION_RETRY_DELAY", 0.1)


@pytest.mark.usefixtures("short_connection_retry")
def test_trigger_connection_missing_fires_error_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_RUNQY_DEFAULT", raising=False)
    clear_settings()
    trigger = _trigger(1, "webhook")
    event = asyncio.run(_first_event(trigger))

    assert (event["kind"], event["error"]) == ("error", "Misconfigured")
    assert "runqy_default" in event["message"]


def count_context_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which each load of a connection by a trigger is added."""
    conn_ids: list[str] = []

    async def counted(conn_id: str) -> Settings:
        conn_ids.append(conn_id)
        return await aload_settings(conn_id)

    monkeypatch.setattr("runqy_provider.jobs.waiting.aload_settings", counted)
    return conn_ids


@pytest.mark.usefixtures("connect")
@pytest.mark.parametrize("name", ["RUNQY_DEFAULT", "REDIS_DEFAULT"])
def test_trigger_connection_missing_for_a_moment_keeps_waiting(
    name: str, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow also reports "not found" when its own database is unavailable."""
    monkeypatch.setattr(waiting, "CONNECTION_RETRY_DELAY", 0.1)
    monkeypatch.setattr("runqy_provider.settings.NEGATIVE_TTL", 0.0)
    variable = f"AIRFLOW_CONN_{name}"
    connection = os.environ[variable]
    monkeypatch.delenv(variable)
    attempts = count_context_loads(monkeypatch)
    trigger = _trigger(f"moment-{time.time_ns()}", "webhook")

    async def scenario() -> dict[str, Any]:
        waiting = asyncio.create_task(_first_event(trigger))
        while len(attempts) < 3:
            assert not waiting.done()
            await asyncio.sleep(0.01)
        monkeypatch.setenv(variable, connection)
        await asyncio.to_thread(_deliver, stack, trigger.job.delivery_id)
        return await waiting

    assert asyncio.run(scenario())["kind"] == "arrived"


async def _first_event(trigger: DeliveryTrigger) -> dict[str, Any]:
    try:
        async for event in trigger.run():
            return dict(event.payload)
        raise AssertionError("the trigger ended without an event")
    finally:
        await close_waiters()


def test_trigger_sink_error_fires_error_event(connect: Callable[..., Any]) -> None:
    connect(without=("callback_secret",))
    event = asyncio.run(_first_event(_trigger(1, "s3://no-bucket-here")))

    assert (event["kind"], event["error"]) == ("error", "NotThere")
    assert "s3://no-bucket-here" in event["message"]


MINE, OTHER = "mine", "other"

#: For a cancelled trigger: what Airflow reports about its task poll by poll (the state,
#: and the job in its XCom), and whether the job must be deleted.
CANCELLED: dict[str, tuple[list[tuple[str | None, str | None]], bool]] = {
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


def test_trigger_cancelled_deletes_job_only_if_no_try_waits(
    stack: Stack, connect: Callable[..., Any], tmp_path: Path
) -> None:
    redis = Redis.from_url(stack.sandbox.redis_url)
    triggers, tasks, jobs = {}, {}, {}
    with RunqyHook() as hook:
        for n, (name, (answers, _)) in enumerate(CANCELLED.items()):
            jobs[name] = hook.enqueue("idle", {"n": n}).job_id
            ids = {MINE: jobs[name], OTHER: "another", None: None}
            tasks[f"t{n}"] = [(state, ids[job]) for state, job in answers]
            triggers[n] = DeliveryTrigger(
                runqy_conn_id="runqy_default",
                delivery_id=f"kill-{n}",
                sink="webhook",
                deadline=time.time() + 60,
                job_id=jobs[name],
                runqy_queue="idle.default",
                delete_abandoned=True,
            )
    channel = keys.arrivals("runqy_default")
    wanted = {name: is_deleted for name, (_, is_deleted) in CANCELLED.items()}

    def deleted() -> dict[str, bool]:
        return {
            name: not redis.exists(f"asynq:{{idle.default}}:t:{job_id}")
            for name, job_id in jobs.items()
        }

    def all_answers_are_read() -> bool:
        reads = triggerer.reads
        return all(
            reads.get(f"t{n}", 0) >= len(answers)
            for n, (answers, is_deleted) in enumerate(CANCELLED.values())
            if not is_deleted
        )

    with Triggerer(tmp_path, triggers, stack.connections, tasks) as triggerer:
        triggerer.run_until(lambda: redis.pubsub_numsub(channel)[0][1])
        triggerer.drop(list(triggers))
        # The slowest deletion takes three polls, a second apart: by then the decision
        # about the jobs that stay has been made.
        triggerer.run_until(lambda: all_answers_are_read() and deleted() == wanted)
    redis.close()


@pytest.mark.usefixtures("connect")
def test_trigger_already_fired_deletes_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[str] = []

    async def is_abandoned(_ti: Any, job_id: str) -> bool:
        checks.append(job_id)
        return False

    monkeypatch.setattr("runqy_provider.triggers.delivery.is_abandoned", is_abandoned)
    ti: Any = SimpleNamespace(task_id="t")

    async def scenario(*, is_fired: bool) -> None:
        trigger = DeliveryTrigger(
            runqy_conn_id="runqy_default",
            delivery_id=f"fired-{time.time_ns()}",
            sink="webhook",
            deadline=time.time(),
            job_id="job-1",
            delete_abandoned=True,
        )
        trigger.task_instance = ti
        if is_fired:
            assert (await _first_event(trigger))["kind"] == "deadline"
        await trigger.on_kill()

    asyncio.run(scenario(is_fired=False))
    assert checks == ["job-1"]
    asyncio.run(scenario(is_fired=True))
    assert checks == ["job-1"]


@pytest.mark.skipif(not hasattr(BaseTrigger, "on_kill"), reason="Airflow from 3.3 on")
@pytest.mark.usefixtures("connect")
async def test_trigger_killed_ends_when_its_job_is_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Airflow closes the log of the task when the trigger has ended."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def is_abandoned(_ti: Any, _job_id: str) -> bool:
        begun.set()
        await may_end.wait()
        return False

    monkeypatch.setattr("runqy_provider.triggers.delivery.is_abandoned", is_abandoned)
    trigger = DeliveryTrigger(
        runqy_conn_id="runqy_default",
        delivery_id=f"killed-{time.time_ns()}",
        sink="webhook",
        deadline=time.time() + 600,
        job_id="job-1",
        delete_abandoned=True,
    )
    ti: Any = SimpleNamespace(task_id="t")
    trigger.task_instance = ti
    running = asyncio.ensure_future(_first_event(trigger))
    await asyncio.sleep(0)

    running.cancel("a user")
    await begun.wait()
    for _ in range(3):  # as Airflow does until the trigger has ended
        running.cancel("a user")
        await asyncio.sleep(0)
    assert not running.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    await close_waiters()
