"""What RunqyOperator refuses before it enqueues a job, and with which message."""

from __future__ import annotations

import re
from datetime import timedelta
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
    PayloadTooLarge,
    QueueNotFound,
    ServerUnavailable,
    SinkUnavailable,
)
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
        ("helper", {"x": {1, 2}}, InvalidPayload, "is not JSON"),
        ("helper", [1, 2], InvalidPayload, "must be an object"),
        ("helper", {"webhook_url": "x"}, InvalidPayload, "'webhook_url'"),
        ("helper", {"x": "y" * (50 * 1024 * 1024)}, PayloadTooLarge, "52,4"),
    ],
)
def test_operator_invalid_payload_or_queue_is_refused_with_reason(
    stack: Stack, queue: str, payload: Any, error: type[Exception], message: str
) -> None:
    before = _jobs(stack)

    with pytest.raises(error, match=re.escape(message)):
        outcome_of(run_of(payload, queue))
    assert _jobs(stack) == before


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
    assert _jobs(stack) == before


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
    assert _jobs(stack) == before


def test_operator_server_unavailable_fails_after_retries(
    connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runqy_provider.hooks.runqy.RETRY_FOR", 1.0)
    url = f"http://127.0.0.1:{free_port()}"
    connect(fields={"host": url})

    with pytest.raises(ServerUnavailable, match=f"runqy at {url}"):
        outcome_of(run_of({"value": 1}))


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
    assert _jobs(stack) == before


def test_operator_delivery_timeout_zero_is_refused() -> None:
    with pytest.raises(Misconfigured, match="longer than zero"):
        outcome_of(run_of({}, delivery_timeout=timedelta(0)))
