"""Results that runqy keeps: in its Redis, or asked for over HTTP."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from redis import Redis

from runqy_provider.client.redis_keys import hash_key
from runqy_provider.context import get_access
from runqy_provider.errors import (
    BadDelivery,
    JobFailed,
    JobVanished,
    Misconfigured,
    SinkUnavailable,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.models import Ticket, is_reference
from runqy_provider.sensors.runqy import RunqySensor
from runqy_provider.sinks.redis_storage import RedisStorageSink
from runqy_provider.waiters.registry import close_waiters
from runqy_provider.waiters.wait_any import wait_for_arrival
from runqy_sandbox.process.net import free_port
from tests.support import harness
from tests.support.harness import Run, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.stack import World

pytestmark = pytest.mark.usefixtures("connect", "no_settling")

SINK = "redis_storage"


@pytest.fixture(params=["redis", "http"])
def way(request: pytest.FixtureRequest, connect: Callable[..., Any]) -> str:
    """How runqy's storage is looked into."""
    if request.param == "http":
        connect(without=("runqy_redis_conn_id",))
    return str(request.param)


def run_of(payload: Any, runqy_queue: str = "stored", **arguments: Any) -> Run:
    return harness.run_of(payload, runqy_queue, **{"sink": SINK, **arguments})


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("value", [{"a": [1, None]}, None, "text", "7", 0])
def test_a_value_comes_home(value: Any) -> None:
    assert outcome_of(run_of({"value": value})) == value


@pytest.mark.usefixtures("way")
def test_guide_style_task_code_runs_as_it_is() -> None:
    assert outcome_of(run_of({"numbers": [1, 2]}, "stored_guide")) == {"sum": 3}


def test_a_bare_value_that_runqys_api_garbles_is_said_to_be(
    connect: Callable[..., Any], world: World
) -> None:
    """Of task code without our helper; in Redis it stands as it is."""
    redis = Redis(port=world.sandbox.redis_port)
    run = run_of({}, "idle").execute()
    job = run.xcoms["runqy_job"]
    done = {"state": "completed", "result": "true"}
    redis.hset(hash_key(job["runqy_queue"], job["job_id"]), mapping=done)
    event = run.fire()
    assert run.resume(event).value is True

    connect(without=("runqy_redis_conn_id",))
    run.next = None
    again = run_of({}, "idle").execute()
    job = again.xcoms["runqy_job"]
    redis.hset(hash_key(job["runqy_queue"], job["job_id"]), mapping=done)
    again.resume(again.fire())
    assert isinstance(again.error, BadDelivery)
    assert "garbles" in str(again.error)


@pytest.mark.usefixtures("way")
def test_bytes_come_home_with_their_type() -> None:
    image = outcome_of(run_of({"bytes": 3000}))

    assert is_reference(image)
    assert (image["content_type"], image["size"]) == ("image/png", 3000)
    assert RunqyResultHook().read(image).bytes() == b"x" * 3000


@pytest.mark.usefixtures("way")
def test_a_failure_through_the_helper_comes_at_once_with_its_traceback() -> None:
    run = run_of({"error": "too dark"})

    with pytest.raises(JobFailed, match="ValueError: too dark") as caught:
        outcome_of(run)
    assert "raise ValueError" in str(caught.value.traceback)
    assert run.xcoms["runqy_delivery"]["status"] == "failed"


def test_a_job_given_up_by_runqy_fails_with_its_last_error(way: str) -> None:
    run = run_of({"numbers": "no list"}, "stored_guide")

    with pytest.raises(JobFailed) as caught:
        outcome_of(run)
    expected = "unsupported operand" if way == "redis" else "gave the job up after 3"
    assert expected in str(caught.value)


@pytest.mark.usefixtures("way")
def test_a_result_beyond_the_workers_line_fails_and_names_the_way_out() -> None:
    with pytest.raises(JobFailed, match="object store"):
        outcome_of(run_of({"bytes": 9_000_000}))


@pytest.mark.usefixtures("way")
def test_a_queue_that_stores_nothing_is_said_to() -> None:
    """Runqy forgets such a job as it ends; its result is nowhere."""
    with pytest.raises(JobVanished):
        outcome_of(run_of({"value": 1}, "helper"))


@pytest.mark.usefixtures("way")
def test_a_job_deleted_while_waiting_is_told() -> None:
    run = run_of({}, "idle").execute()
    job = run.xcoms["runqy_job"]
    with RunqyHook() as hook:
        hook.delete_job(job["runqy_queue"], job["job_id"])

    run.resume(run.fire())
    assert isinstance(run.error, JobVanished)
    assert job["job_id"] in str(run.error)


@pytest.mark.usefixtures("way")
def test_a_timeout_says_which_job_did_not_end() -> None:
    run = run_of({}, "idle", delivery_timeout=timedelta(seconds=1)).execute()
    run.resume(run.fire())

    words = str(run.error)
    assert run.xcoms["runqy_job"]["job_id"] in words
    assert "has not ended" in words
    assert "is pending" in words


def test_runqys_redis_away_enqueues_nothing(
    connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(runqy_redis_conn_id="gone")
    monkeypatch.setenv("AIRFLOW_CONN_GONE", f"redis://127.0.0.1:{free_port()}")

    run = run_of({})
    with pytest.raises(SinkUnavailable, match="reach runqy's Redis"):
        outcome_of(run)
    assert "runqy_job" not in run.xcoms


def test_a_redis_connection_that_does_not_exist_is_named(
    connect: Callable[..., Any],
) -> None:
    connect(runqy_redis_conn_id="nowhere_to_be_found")

    with pytest.raises(Misconfigured, match="nowhere_to_be_found"):
        outcome_of(run_of({}))


def test_a_sensor_needs_the_job(way: str) -> None:
    with DAG("d", schedule=None):
        sensor = RunqySensor(task_id="s", delivery_id="d-1", sink=SINK)

    with pytest.raises(Misconfigured, match="job_id and runqy_queue"):
        outcome_of(Run(sensor))
    assert way


@pytest.mark.usefixtures("way")
def test_a_sensor_waits_for_a_job_enqueued_elsewhere() -> None:
    run = run_of({"value": 9, "seconds": 0.2}).execute()
    submission = run.xcoms["runqy_job"]
    with DAG("d", schedule=None):
        sensor = RunqySensor(
            task_id="s",
            sink=SINK,
            **{
                name: submission[name]
                for name in ("delivery_id", "job_id", "runqy_queue")
            },
        )

    assert outcome_of(Run(sensor)) == 9


def test_a_hundred_waits_cost_one_connection_and_one_round_trip_a_look(
    world: World,
) -> None:
    redis = Redis(port=world.sandbox.redis_port)
    jobs = [f"stored-{n}" for n in range(100)]
    for job_id in jobs:
        redis.hset(hash_key("q", job_id), "state", "active")
    access = get_access("runqy_default")

    async def scenario() -> tuple[int, list[Any]]:
        before = {client["id"] for client in redis.client_list()}
        waits = [
            asyncio.ensure_future(
                wait_for_arrival(
                    RedisStorageSink().places(
                        access, Ticket(f"d-{job_id}", job_id, "q")
                    ),
                    deadline=time.time() + 30,
                )
            )
            for job_id in jobs
        ]
        await asyncio.sleep(0)
        while True:  # until all have been looked for once
            opened = [c for c in redis.client_list() if c["id"] not in before]
            if opened and opened[0]["cmd"].startswith("hmget"):
                break
            await asyncio.sleep(0.01)
        for job_id in jobs:
            redis.hset(hash_key("q", job_id), mapping={"state": "completed"})
        arrivals = await asyncio.gather(*waits)
        await close_waiters()
        return len(opened), arrivals

    connections, arrivals = asyncio.run(scenario())
    redis.delete(*(hash_key("q", job_id) for job_id in jobs))

    assert connections == 1
    assert {arrival.status for arrival in arrivals} == {"completed"}
