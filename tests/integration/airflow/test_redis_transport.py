"""Jobs that are enqueued in runqy's own Redis, and not by its server."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from runqy_provider.client.models import JobOptions
from runqy_provider.client.redis_transport import MAX_RETRY, task_message
from runqy_provider.errors import (
    InvalidPayload,
    Misconfigured,
    PayloadTooLarge,
    QueueNotFound,
    ServerUnavailable,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_sandbox.process.net import free_port
from tests.support.harness import outcome_of, run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.stack import Gate, Stack

TRANSCRIPT = Path(__file__).parents[2] / "conformance" / "transcripts" / "api.json"


@pytest.fixture(autouse=True)
def _redis_transport(connect: Callable[..., Any]) -> None:
    connect(transport="redis")


@pytest.fixture
def hook() -> Iterator[RunqyHook]:
    with RunqyHook(retry_for=0) as hook:
        yield hook


@pytest.fixture
def redis(stack: Stack) -> Iterator[Any]:
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        yield redis


def test_task_message_is_the_recorded_one_byte_for_byte() -> None:
    [entry] = [
        entry
        for entry in json.loads(TRANSCRIPT.read_text())
        if entry["name"] == "redis after that enqueue"
    ]
    fields = entry["redis"]["asynq:{plain.default}:t:<id1>"]["value"]
    recorded = base64.b64decode(fields["msg"].removeprefix("base64:"))
    start = recorded.index(b"\x1a$") + 2
    job_id = recorded[start : start + 36].decode()

    written = task_message(
        job_id, "plain.default", b'{"kind":"echo","n":1}', 300, MAX_RETRY
    )

    assert written == recorded


def test_redis_transport_new_queue_needs_a_worker_or_the_server(
    connect: Callable[..., Any], redis: Any
) -> None:
    redis.srem("asynq:queues", "split.high")  # another test may have used it
    connect(transport="redis", without=("admin_api_key",))
    with RunqyHook(retry_for=0) as hook, pytest.raises(QueueNotFound, match="admin"):
        hook.enqueue("split.high", {})
    connect(transport="redis")
    with RunqyHook(retry_for=0) as hook:
        assert hook.enqueue("split.high", {}).runqy_queue == "split.high"


def test_redis_transport_leaves_what_the_server_leaves(
    hook: RunqyHook, connect: Callable[..., Any], redis: Any
) -> None:
    payload = {"text": "a <b> & \u2028 \u00e9", "n": 1, "list": [1.5, None, True]}
    ours = hook.enqueue("idle", payload, job_timeout=5)
    connect()
    with RunqyHook(retry_for=0) as over_http:
        theirs = over_http.enqueue("idle", payload, job_timeout=5)

    assert _state(redis, ours.job_id) == _state(redis, theirs.job_id)
    assert (ours.state, ours.runqy_queue) == (theirs.state, theirs.runqy_queue)
    assert hook.get_job(ours.job_id).payload == payload


def _state(redis: Any, job_id: str) -> dict[str, Any]:
    """Return all that Redis has of a pending job, without its id and times."""
    key = f"asynq:{{idle.default}}:t:{job_id}"
    fields = redis.hgetall(key)
    since = int(fields.pop(b"pending_since"))
    assert len(str(since)) == len("1790000000000000000"), "nanoseconds"
    fields[b"msg"] = fields[b"msg"].replace(job_id.encode(), b"the id")
    return {
        "fields": fields,
        "ttl": redis.ttl(key),
        "reverse": redis.hgetall(f"asynq:t:{job_id}"),
        "reverse ttl": redis.ttl(f"asynq:t:{job_id}"),
        "pending": redis.lrange("asynq:{idle.default}:pending", 0, -1).count(
            job_id.encode()
        ),
        "known": redis.sismember("asynq:queues", "idle.default"),
    }


def test_redis_transport_same_id_is_enqueued_once(hook: RunqyHook, redis: Any) -> None:
    for n in range(3):
        job = hook.enqueue("idle", {"n": n}, job_id="the-same")
        assert job.job_id == "the-same"

    assert redis.lrange("asynq:{idle.default}:pending", 0, -1).count(b"the-same") == 1
    assert hook.get_job("the-same").payload == {"n": 0}


def test_redis_transport_job_that_has_run_is_not_enqueued_again(
    hook: RunqyHook, redis: Any
) -> None:
    """An answer may be lost, and the job may end before the next try."""
    hook.enqueue("silent", {}, job_id="has-run")
    while redis.exists("asynq:{silent.default}:t:has-run"):
        time.sleep(0.02)
    processed = redis.get("asynq:{silent.default}:processed")
    hook.enqueue("silent", {}, job_id="has-run")

    assert not redis.exists("asynq:{silent.default}:t:has-run")
    assert redis.get("asynq:{silent.default}:processed") == processed


def test_redis_transport_options_are_in_the_job(hook: RunqyHook, redis: Any) -> None:
    options = JobOptions(
        timeout=7, max_retry=0, active_timeout=60.5, ttl_completed=3600
    )
    job = hook.enqueue("idle", {}, options=options)

    fields = redis.hgetall(f"asynq:{{idle.default}}:t:{job.job_id}")
    assert (fields[b"active_timeout"], fields[b"ttl_completed"]) == (b"60", b"3600")
    assert hook.get_job(job.job_id).max_retry == 0


@pytest.mark.parametrize(
    "options", [{"max_retry": 1}, {"active_timeout": 5.0}, {"ttl_completed": 5.0}]
)
def test_http_transport_option_of_redis_is_refused(
    connect: Callable[..., Any], options: dict[str, Any]
) -> None:
    connect()
    [name] = options
    with (
        RunqyHook(retry_for=0) as hook,
        pytest.raises(Misconfigured, match=f"{name} cannot be set over HTTP"),
    ):
        hook.enqueue("idle", {}, options=JobOptions(**options))


@pytest.mark.parametrize(
    "options", [{"max_retry": -1}, {"max_retry": 1.5}, {"active_timeout": 0}]
)
def test_job_options_impossible_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="must be"):
        JobOptions(**options)


@pytest.mark.parametrize("without", [(), ("admin_api_key",)])
def test_redis_transport_unknown_queue_is_refused(
    hook: RunqyHook, redis: Any, connect: Callable[..., Any], without: tuple[str, ...]
) -> None:
    connect(transport="redis", without=without)
    with pytest.raises(QueueNotFound, match=r"runqy has no queue 'nope\.default'"):
        hook.enqueue("nope", {})

    assert not redis.exists("asynq:{nope.default}:pending")


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({"x": float("nan")}, InvalidPayload),
        ({"x": object()}, InvalidPayload),
        ({"x": "\ud800"}, InvalidPayload),
        ({"x": "y" * 50 * 1024 * 1024}, PayloadTooLarge),
    ],
    ids=["nan", "object", "half a character", "large"],
)
def test_redis_transport_bad_payload_is_refused(
    hook: RunqyHook, payload: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="for queue 'idle"):
        hook.enqueue("idle", payload)


def test_redis_transport_without_redis_is_refused(connect: Callable[..., Any]) -> None:
    connect(transport="redis", without=("runqy_redis_conn_id",))
    with pytest.raises(Misconfigured, match="does not name runqy's own Redis"):
        RunqyHook().enqueue("idle", {})
    connect(transport="pigeon")
    with pytest.raises(Misconfigured, match="It can be 'http' or 'redis'"):
        RunqyHook().enqueue("idle", {})


def test_redis_transport_redis_unavailable_says_that_a_retry_is_safe(
    connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(transport="redis", runqy_redis_conn_id="redis_gone")
    gone = {"conn_type": "redis", "host": "127.0.0.1", "port": free_port()}
    monkeypatch.setenv("AIRFLOW_CONN_REDIS_GONE", json.dumps(gone))
    with (
        RunqyHook(retry_for=0) as hook,
        pytest.raises(ServerUnavailable, match="it will not run twice"),
    ):
        hook.enqueue("idle", {})


@pytest.mark.usefixtures("no_settling")
def test_operator_redis_transport_result_is_returned() -> None:
    assert outcome_of(run_of({"value": {"a": 1}}, max_retry=1)) == {"a": 1}


@pytest.mark.usefixtures("no_settling")
def test_operator_redis_transport_killed_after_enqueue_is_found_by_retry(
    gate: Gate, redis: Any
) -> None:
    """The answer was lost: the job's id was chosen, and recorded, before."""
    run = run_of({"value": "once", **gate.closed}).execute()
    job = run.record
    assert job["job_id"] == job["delivery_id"]
    ids = redis.keys("asynq:{helper.default}:t:*")

    retry = run.retried().execute()
    assert retry.state == "deferred"
    assert redis.keys("asynq:{helper.default}:t:*") == ids
    gate.open()

    assert retry.resume(retry.fire()).value == "once"
    assert retry.record["job_id"] == job["job_id"]
