"""RunqyBatchOperator: what it does after a kill, a retry, a clear and a change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from redis import Redis

from runqy_provider.errors import (
    BatchFailed,
    ServerUnavailable,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.inbox.keys import READ_TTL
from tests.integration.batch.conftest import batch_of, run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.stack import Gate, Stack

pytestmark = pytest.mark.usefixtures("no_settling", "short_intervals")


@pytest.fixture
def enqueued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the chunks that were enqueued, in order."""
    sizes: list[int] = []
    enqueue = RunqyHook.enqueue_batch

    def counted(self: RunqyHook, queue: str, jobs: Any, options: Any = None) -> Any:
        sizes.append(len(jobs))
        return enqueue(self, queue, jobs, options)

    monkeypatch.setattr(RunqyHook, "enqueue_batch", counted)
    return sizes


@pytest.fixture
def redis(stack: Stack) -> Iterator[Any]:
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        yield redis


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.usefixtures("connect")
def test_batch_retry_waits_for_the_jobs_of_the_attempt_before(
    gate: Gate, enqueued: list[int]
) -> None:
    run = batch_of([{**gate.closed, "value": n} for n in range(3)]).execute()
    assert run.state == "deferred"

    retry = run.retried().execute()
    gate.open()
    run_to_end(retry)

    assert retry.value == [0, 1, 2]
    assert enqueued == [3]


@pytest.mark.usefixtures("transport")
def test_batch_retry_runs_only_the_failed_jobs_again(
    tmp_path: Path, enqueued: list[int]
) -> None:
    flag = tmp_path / "flag"
    failing = {"fails_without": str(flag), "value": 1}
    run = run_to_end(batch_of([{"value": 0}, failing, {"value": 2}]))
    assert isinstance(run.error, BatchFailed)
    flag.touch()

    retry = run_to_end(run.retried())

    assert retry.value == [0, 1, 2], retry.error
    assert enqueued == [3, 1]


@pytest.mark.usefixtures("connect")
@pytest.mark.parametrize("fails", [True, False])
def test_batch_that_fails_keeps_the_deliveries_for_its_retry(
    redis: Any, *, fails: bool
) -> None:
    run = run_to_end(batch_of([{"value": 0}, {"error": "no"} if fails else {}]))

    assert run.state == ("failed" if fails else "success")
    batch_id = run.record["batch"]["batch_id"]
    [key] = redis.scan_iter(f"runqy:inbox:*:delivery:{batch_id}-0000000")
    assert (redis.ttl(key) > READ_TTL) is fails


@pytest.mark.usefixtures("connect")
def test_batch_after_a_clear_runs_all_jobs_again(enqueued: list[int]) -> None:
    run = run_to_end(batch_of([{"value": 0}, {"value": 1}]))

    again = run_to_end(run.retried(is_cleared=True))

    assert again.value == [0, 1]
    assert enqueued == [2, 2]


def test_batch_over_redis_after_a_kill_between_enqueue_and_record_runs_no_job_twice(
    connect: Callable[..., Any],
    gate: Gate,
    redis: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect(transport="redis")
    run = batch_of([{**gate.closed, "value": n} for n in range(5)])
    run.max_tries = 1
    enqueue = RunqyHook.enqueue_batch

    def enqueue_and_die(self: RunqyHook, *args: Any) -> Any:
        enqueue(self, *args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunqyHook, "enqueue_batch", enqueue_and_die)
        run.execute()
    batch_id = run.record["batch"]["batch_id"]
    assert known_jobs(redis, batch_id) == 5
    retry = run.retried().execute()
    assert known_jobs(redis, batch_id) == 5
    gate.open()

    assert run_to_end(retry).value == [0, 1, 2, 3, 4]


def known_jobs(redis: Any, batch_id: str) -> int:
    """Return how many jobs of a batch runqy has; one that has ended is not kept.

    By their hashes, as a job that a worker takes is in no list for a moment.
    """
    return sum(1 for _ in redis.scan_iter(f"asynq:{{helper.default}}:t:{batch_id}*"))


def at(url: str) -> dict[str, Any]:
    """Return the fields of a connection to a server."""
    parts = urlsplit(url)
    return {"host": f"http://{parts.hostname}", "port": parts.port}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>log in</html>"),
        (404, b"<html>not found</html>"),
        (200, b'{"enqueued": 0, "failed": 5, "task_ids": [], "errors": ["away"]}'),
    ],
)
def test_batch_over_http_whose_answer_says_that_nothing_was_enqueued_fails_at_once(
    status: int,
    body: bytes,
    connect: Callable[..., Any],
    httpserver_url: Callable[[int, bytes], str],
) -> None:
    connect(fields=at(httpserver_url(status, body)))

    run = batch_of([{"value": n} for n in range(5)]).execute()

    assert isinstance(run.error, ServerUnavailable)
    assert run.record["batch"]["enqueued"] == 0
