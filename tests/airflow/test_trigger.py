"""DeliveryTrigger: what it carries, and what a hundred of them cost a triggerer."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from airflow.triggers.base import BaseTrigger
from redis import Redis
from triggerer import start

from runqy_delivery import Delivery
from runqy_provider.inbox import capability, keys
from runqy_provider.triggers.delivery import DeliveryTrigger

if TYPE_CHECKING:
    from conftest import World

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
    world: World,
) -> None:
    redis = Redis.from_url(world.sandbox.redis_url)
    triggers = {n: _trigger(n, "webhook") for n in range(100)}
    channel = keys.arrivals("runqy_default")
    triggerer = start(triggers, world.connections)
    try:
        triggerer.run_until(lambda: redis.pubsub_numsub(channel)[0][1])
        for n in range(100):
            _deliver(world, f"many-{n}")
        subscribed = [c for c in redis.client_list() if int(c["sub"])]
        triggerer.run_until(lambda: len(triggerer.events) == 100)
    finally:
        triggerer.kill(escalation_delay=3, force=True)
        redis.close()

    assert triggerer.failures == {}
    assert {event["event"] for event in triggerer.events.values()} == {"arrived"}
    assert len(subscribed) == 1
    assert sorted(triggerer.asked) == ["redis_default", "runqy_default"]


def test_a_hundred_waits_in_a_bucket_are_one_loop(
    world: World, monkeypatch: pytest.MonkeyPatch
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
    triggerer = start(triggers, connections)

    def lists() -> int:
        return log.read_text(errors="replace").count("prefix=hundred%2F")

    try:
        triggerer.run_until(lambda: lists() >= 1)
        started, before = time.monotonic(), lists()
        triggerer.run_until(lambda: lists() >= before + 4)
        took = time.monotonic() - started
        for n in range(100):
            client.put_object(Bucket="results", Key=f"hundred/many-{n}", Body=b"1")
        triggerer.run_until(lambda: len(triggerer.events) == 100)
    finally:
        triggerer.kill(escalation_delay=3, force=True)

    assert triggerer.failures == {}
    assert took >= 1.4, "four sweeps of all waits, at half a second each"
    words = log.read_text(errors="replace")
    assert "prefix=hundred%2Fmany" not in words, "no wait asked for itself alone"
    assert sorted(triggerer.asked) == ["aws_default", "redis_default", "runqy_default"]


def test_a_trigger_whose_connection_is_gone_fails_its_task(world: World) -> None:
    triggerer = start({1: _trigger(1, "webhook")}, {})
    try:
        triggerer.run_until(lambda: triggerer.failures)
    finally:
        triggerer.kill(escalation_delay=3, force=True)

    assert "runqy_default" in str(triggerer.failures[1])


def test_an_error_of_the_sink_is_an_event_with_its_name(world: World) -> None:
    connections: Any = json.loads(json.dumps(world.connections))
    connections["runqy_default"]["extra"].pop("callback_secret")
    triggerer = start({1: _trigger(1, "s3://no-bucket-here")}, connections)
    try:
        triggerer.run_until(lambda: triggerer.events)
    finally:
        triggerer.kill(escalation_delay=3, force=True)

    event = triggerer.events[1]
    assert (event["event"], event["error"]) == ("error", "NotThere")
    assert "s3://no-bucket-here" in event["message"]
