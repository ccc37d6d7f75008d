"""What RunqyOperator refuses before it enqueues a job, and with which message."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from runqy_provider.errors import (
    InvalidPayload,
    Misconfigured,
    NoAccess,
    NotAllowed,
    NotThere,
    QueueNotFound,
    ServerUnavailable,
    SinkUnavailable,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_sandbox.process.net import free_port
from tests.support.harness import outcome_of, run_of

if TYPE_CHECKING:
    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


@pytest.mark.parametrize(
    ("queue", "payload", "error", "message"),
    [
        ("nope", {}, QueueNotFound, "no queue 'nope'"),
        ("split", {}, QueueNotFound, "'split.default': name the sub-queue"),
        ("typed", {"prompt": 3}, InvalidPayload, "field 'prompt' has type number"),
        ("helpr", {}, QueueNotFound, "Did you mean 'helper'?"),
        ("helper", {"x": {1, 2}}, InvalidPayload, "is not JSON"),
        ("helper", [1, 2], InvalidPayload, "must be an object"),
        ("helper", {"webhook_url": "x"}, InvalidPayload, "'webhook_url'"),
    ],
)
def test_operator_invalid_payload_or_queue_is_refused_with_reason(
    stack: Stack, queue: str, payload: Any, error: type[Exception], message: str
) -> None:
    before = _jobs(stack)

    with pytest.raises(error, match=re.escape(message)):
        outcome_of(run_of(payload, queue))
    # Jobs of other tests may expire meanwhile.
    assert _jobs(stack) <= before


def _jobs(stack: Stack) -> set[bytes]:
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        return set(redis.keys("asynq:*:t:*"))


@pytest.mark.parametrize(
    ("change", "sink", "error", "message"),
    [
        ({"fields": {"password": "wrong"}}, "webhook", NotAllowed, "does not know"),
        ({"fields": {"password": None}}, "webhook", NotAllowed, "has no API key"),
        ({"fields": {"host": ""}}, "webhook", Misconfigured, "has no host"),
        ({"without": ("callback_url",)}, "webhook", Misconfigured, "no callback_url"),
        ({"without": ("callback_secret",)}, "webhook", Misconfigured, "openssl rand"),
        ({"callback_secret": "short"}, "webhook", Misconfigured, "fewer than 24"),
        (
            {"signing_secret": "whsec_c2hvcnQ="},
            "webhook",
            Misconfigured,
            "openssl rand",
        ),
        ({"callback_url": "ftp://x"}, "webhook", Misconfigured, "must be the receiver"),
        ({"redis_conn_id": "no"}, "webhook", Misconfigured, "does not exist"),
        ({}, "s3://no-such-bucket-here", NotThere, "does not exist"),
        ({}, "s3://Bad_Bucket/x", Misconfigured, "is not a valid name of an S3 bucket"),
        ({}, "s3://results/x?speed=fast", Misconfigured, "not speed"),
        ({}, "carrier-pigeon", Misconfigured, "'carrier-pigeon' is not a valid sink"),
    ],
)
def test_operator_unusable_connection_or_sink_enqueues_nothing(
    stack: Stack,
    connect: Any,
    change: dict[str, Any],
    sink: str,
    error: type[Exception],
    message: str,
) -> None:
    connect(**change)
    before = _jobs(stack)

    with pytest.raises(error, match=re.escape(message)):
        outcome_of(run_of({"value": 1}, sink=sink))
    # Jobs of other tests may expire meanwhile.
    assert _jobs(stack) <= before


def test_operator_api_key_with_wrong_role_is_refused(
    stack: Stack, connect: Any
) -> None:
    connect(fields={"password": stack.sandbox.worker_key})

    with pytest.raises(NotAllowed, match="Enter a key with the role client"):
        outcome_of(run_of({"value": 1}))


def test_operator_redis_unavailable_enqueues_nothing(
    stack: Stack, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect()
    port = free_port()
    monkeypatch.setenv("AIRFLOW_CONN_REDIS_DEFAULT", f"redis://127.0.0.1:{port}")
    before = _jobs(stack)

    with pytest.raises(SinkUnavailable, match=f"Redis at 127.0.0.1:{port}"):
        outcome_of(run_of({"value": 1}))
    # Jobs of other tests may expire meanwhile.
    assert _jobs(stack) <= before


def test_operator_server_unavailable_fails_after_retries(
    connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runqy_provider.hooks.runqy.RETRY_FOR", 1.0)
    url = f"http://127.0.0.1:{free_port()}"
    connect(fields={"host": url})

    run = run_of({"value": 1}).execute()

    assert type(run.error) is ServerUnavailable
    assert f"runqy at {url}" in str(run.error)
    assert "tried for" in str(run.error)
    assert run.error.__cause__ is None


def test_hook_server_unavailable_is_logged_once_and_then_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, connect: Any
) -> None:
    monkeypatch.setattr("runqy_provider.hooks.runqy.RETRY_LOG_INTERVAL", 0.5)
    connect(fields={"host": f"http://127.0.0.1:{free_port()}"})

    caplog.set_level(logging.INFO)
    with RunqyHook(retry_for=2.0) as hook:
        # Airflow's own logger of hooks does not reach pytest.
        hook._log = logging.getLogger("tests.hook")  # type: ignore[assignment] # Airflow names its own
        with pytest.raises(ServerUnavailable):
            hook.enqueue("helper", {})
    messages = [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if "again" in record.getMessage()
    ]
    levels = [level for level, _ in messages]
    assert levels[0] == "WARNING"
    assert set(levels[1:]) == {"INFO"}
    assert len(levels) <= 5
    assert not any(".." in message or ".;" in message for _, message in messages)


@pytest.mark.parametrize(
    ("field", "value", "error", "text"),
    [
        ("runqy_queue", 1234, QueueNotFound, "'1234'"),
        ("runqy_queue", None, Misconfigured, "runqy_queue of task 't' is None"),
        ("runqy_queue", ["a"], Misconfigured, "runqy_queue of task 't' is a list"),
        ("runqy_queue", True, Misconfigured, "runqy_queue of task 't' is a bool"),
        ("sink", 123, Misconfigured, "'123'"),
        ("sink", {"a": 1}, Misconfigured, "sink of task 't' is a dict"),
        ("sink", ["webhook", None], Misconfigured, "sink of task 't' is None"),
        ("runqy_conn_id", {}, Misconfigured, "runqy_conn_id of task 't' is a dict"),
    ],
)
def test_operator_template_field_not_text_is_text_or_refused(
    stack: Stack, field: str, value: Any, error: type[Exception], text: str
) -> None:
    before = _jobs(stack)
    run = run_of({"value": 1})
    setattr(run.task, field, value)

    with pytest.raises(error, match=re.escape(text)):
        outcome_of(run)
    # Jobs of other tests may expire meanwhile.
    assert _jobs(stack) <= before


def test_operator_bucket_without_access_enqueues_nothing(
    stack: Stack,
) -> None:
    """The endpoint checks credentials in this test, and does not know the stack's."""
    auth, before = f"{stack.sandbox.s3_url}/moto-api/reset-auth", _jobs(stack)
    httpx.post(auth, content="0").raise_for_status()
    try:
        with pytest.raises(NoAccess, match="Check the permissions"):
            outcome_of(run_of({"value": 1}, sink="s3://results"))
    finally:
        httpx.post(auth, content="1000000000").raise_for_status()
    # Jobs of other tests may expire meanwhile.
    assert _jobs(stack) <= before
