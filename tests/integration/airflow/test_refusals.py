"""What the receiver refuses reaches the waiting task, with its reason."""

from __future__ import annotations

import gzip
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from devtools.servers.redis_node import wait_until
from runqy_provider.errors import BatchFailed, DeliveryTimeout, JobVanished
from runqy_provider.inbox import keys
from runqy_provider.jobs.batch.progress import BatchProgress
from runqy_provider.redis_client import client
from runqy_provider.settings import load_settings
from runqy_provider.sinks.inbox import InboxBackend
from tests.integration.batch.conftest import batch_of
from tests.support.harness import Run, run_of, started

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = pytest.mark.usefixtures("connect", "no_settling", "short_watch_interval")

LIMIT = timedelta(seconds=2)
HEADERS = {"Content-Type": "application/json"}


def refuse(delivery_id: str, body: bytes, headers: Mapping[str, str] = HEADERS) -> None:
    """Send what the receiver refuses, and wait until it has told the inbox."""
    backend = InboxBackend(load_settings("runqy_default"))
    url = backend.webhook_url(delivery_id, 4e9)
    assert httpx.post(url, content=body, headers=headers).is_client_error
    with client(backend.redis) as redis:
        key = keys.refused(backend.redis.in_keys(backend.namespace), delivery_id)
        wait_until(lambda: redis.exists(key), "the receiver has told no wait")


def id_of(run: Run) -> str:
    return str(run.xcoms["runqy_job"]["delivery_id"])


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ZIPPED = {**HEADERS, "Content-Encoding": "gzip"}


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b'{"task_id": "ID", "status": "done"}', HEADERS, "status is 'done'"),
        (b'{"task_id": "other", "result": 1}', HEADERS, "'other'; this address"),
        (b'{"task_id": "ID", "result": NaN}', HEADERS, "NaN"),
        (b"task_id=ID&status=completed", FORM, "not a form"),
        (gzip.compress(b"{}"), ZIPPED, "Content-Encoding 'gzip'"),
        (b" " * (9 * 1024 * 1024), HEADERS, "8388608 bytes"),
    ],
    ids=["status", "task_id", "NaN", "form", "gzip", "9 MiB"],
)
def test_refusal_is_logged_and_in_the_error_of_the_timeout(
    body: bytes,
    headers: Mapping[str, str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = started(run_of({}, "idle", delivery_timeout=LIMIT))
    refuse(id_of(run), body.replace(b"ID", id_of(run).encode()), headers)
    event = run.fire()

    assert reason in capsys.readouterr().out
    run.resume(event)
    assert isinstance(run.error, DeliveryTimeout)
    assert reason in str(run.error)


def test_refusal_replaces_advice_in_the_error_of_a_vanished_job() -> None:
    run = started(run_of({}, "silent"))
    refuse(id_of(run), b'{"status": "done"}')
    run.resume(run.fire())

    assert isinstance(run.error, JobVanished)
    assert "status is 'done'" in str(run.error)
    assert "@delivers" not in str(run.error)


def test_refusal_ends_no_wait() -> None:
    run = started(run_of({}, "idle"))
    refuse(id_of(run), b"not json")
    url = InboxBackend(load_settings("runqy_default")).webhook_url(id_of(run), 4e9)
    httpx.post(url, json={"task_id": id_of(run), "result": 7}).raise_for_status()

    assert run.resume(run.fire()).value == 7


def test_refusal_is_in_the_error_of_a_deferral_that_airflow_ends() -> None:
    run = started(run_of({}, "idle"))
    refuse(id_of(run), b"not json")
    run.time_out()

    assert isinstance(run.error, DeliveryTimeout)
    assert "not JSON" in str(run.error)


@pytest.mark.parametrize("transport", ["http", "redis"])
def test_refusal_of_one_job_is_in_log_and_error_of_its_batch(
    transport: str,
    connect: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(transport=transport)
    payloads = [{"n": n} for n in range(3)]
    run = batch_of(payloads, "idle", delivery_timeout=LIMIT).execute()
    batch = BatchProgress.from_json(run.record["batch"])
    refuse(batch.delivery_id(1), b'{"status": "done"}')
    run.resume(run.fire())

    assert "status is 'done'" in capsys.readouterr().out
    assert isinstance(run.error, DeliveryTimeout)
    assert batch.delivery_id(1) in str(run.error)
    assert "status is 'done'" in str(run.error)


def test_refusal_is_the_reason_of_a_failed_job_of_a_batch(
    connect: Callable[..., Any],
) -> None:
    connect(transport="redis")
    run = batch_of([{}], "silent").execute()
    batch = BatchProgress.from_json(run.record["batch"])
    refuse(batch.delivery_id(0), b'{"status": "done"}')
    run.resume(run.fire())

    assert isinstance(run.error, BatchFailed)
    assert "status is 'done'" in str(run.error)
    assert "@delivers" not in str(run.error)
