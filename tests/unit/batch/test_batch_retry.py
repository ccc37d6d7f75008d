"""What the next attempt of a batch does, and what is left after the last one."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.client.api import AnswerLost
from runqy_provider.errors import (
    BatchFailed,
    DeliveryIdTaken,
    DeliveryTimeout,
    HeartbeatTimeout,
    InvalidPayload,
    ServerUnavailable,
    SinkUnavailable,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.batch.manifest import BatchManifest
from tests.unit.batch.conftest import handle, numbers, set_connection

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.fake_runqy import FakeRunqy

SOON = timedelta(seconds=0.2)


def _unavailable(*_: Any) -> int:
    raise SinkUnavailable("away")


@pytest.mark.usefixtures("transport")
def test_batch_timed_out_keeps_pending_jobs_until_its_last_attempt(
    task_of: Any, server: FakeRunqy
) -> None:
    server.handler = None
    task = task_of(numbers(2), delivery_timeout=SOON)
    task.max_tries = 1
    with pytest.raises(DeliveryTimeout, match="2 in flight"):
        task.run()
    assert len(server.jobs) == 2

    with pytest.raises(DeliveryTimeout):
        task.retry()
    assert server.jobs == {}
    assert server.chunks == [2]


def test_batch_last_attempt_delete_abandoned_false_keeps_pending_jobs(
    task_of: Any, server: FakeRunqy
) -> None:
    server.handler = None
    task = task_of(numbers(2), delivery_timeout=SOON, delete_abandoned=False)
    task.max_tries = 0
    with pytest.raises(DeliveryTimeout):
        task.run()

    assert len(server.jobs) == 2


@pytest.mark.usefixtures("transport")
def test_batch_last_attempt_too_many_failed_deletes_pending_jobs(
    task_of: Any, server: FakeRunqy
) -> None:
    server.handler = None
    task = task_of([{"error": "no memory"}, *numbers(2)])
    task.max_tries = 0
    task.start()
    server.run(next(iter(server.jobs)), handle)
    with pytest.raises(BatchFailed):
        task.resume(task.fire())

    assert len(server.jobs) == 1, "only the job that has ended"


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("can_delete", [True, False])
def test_batch_silent_jobs_run_again_only_if_they_were_deleted(
    task_of: Any,
    server: FakeRunqy,
    monkeypatch: pytest.MonkeyPatch,
    *,
    can_delete: bool,
) -> None:
    server.handler = None
    task = task_of(numbers(1), heartbeat_timeout=SOON)
    with monkeypatch.context() as patch:
        if not can_delete:
            patch.setattr(RunqyHook, "delete_pending", _unavailable)
        with pytest.raises(HeartbeatTimeout):
            task.run()
    task.operator.heartbeat_timeout = None
    server.handler = handle
    for job_id in list(server.jobs):
        server.run(job_id, handle)

    assert task.retry() == [0]
    assert server.chunks == ([1, 1] if can_delete else [1])


def test_batch_over_http_without_redis_says_that_its_jobs_stay(
    task_of: Any,
    server: FakeRunqy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_connection(monkeypatch, runqy_redis_conn_id=None)
    server.handler = None
    task = task_of(numbers(2), delivery_timeout=SOON)
    task.max_tries = 0
    with pytest.raises(DeliveryTimeout):
        task.run()

    assert len(server.jobs) == 2
    assert "enter runqy's own Redis" in capsys.readouterr().out


@pytest.mark.usefixtures("transport")
def test_batch_retry_waits_for_jobs_of_the_attempt_before(
    task_of: Any, server: FakeRunqy
) -> None:
    server.handler = None
    task = task_of(numbers(3))
    task.start()
    for job_id in list(server.jobs):
        server.run(job_id, handle)

    assert task.retry() == [0, 1, 2]
    assert server.chunks == [3]


@pytest.mark.usefixtures("transport")
def test_batch_retry_runs_only_failed_jobs_again(
    task_of: Any, server: FakeRunqy
) -> None:
    fails: set[Any] = {1, 2}

    def handle_some(payload: dict[str, Any]) -> Any:
        if payload["value"] in fails:
            raise ValueError("not yet")
        return payload["value"]

    server.handler = handle_some
    task = task_of(numbers(4))
    with pytest.raises(BatchFailed):
        task.run()
    fails.remove(1)
    with pytest.raises(BatchFailed, match="1 of 4"):
        task.retry()
    fails.clear()

    assert task.retry() == [0, 1, 2, 3]
    assert server.chunks == [4, 2, 1]
    assert len(task.batch.rounds) == 2


@pytest.mark.usefixtures("transport")
def test_batch_clear_runs_all_jobs_again(task_of: Any, server: FakeRunqy) -> None:
    task = task_of(numbers(2))
    task.run()

    assert task.retry(is_cleared=True) == [0, 1]
    assert server.chunks == [2, 2]


@pytest.mark.usefixtures("transport")
def test_batch_payloads_changed_before_retry_replaces_pending_jobs(
    task_of: Any, server: FakeRunqy
) -> None:
    server.handler = None
    task = task_of(numbers(3))
    task.start()
    before = set(server.jobs)
    task.operator.payloads = numbers(2)
    server.handler = handle

    assert task.retry() == [0, 1]
    assert not before & set(server.jobs)


def test_batch_payloads_changed_while_it_waits_is_refused(
    task_of: Any, server: FakeRunqy
) -> None:
    task = task_of(numbers(4), max_in_flight=2)
    task.start()
    event = task.fire()
    task.operator.payloads = numbers(5)

    with pytest.raises(InvalidPayload, match="payloads"):
        task.resume(event)


@pytest.mark.usefixtures("transport")
def test_batch_retry_after_manifest_was_written_returns_what_that_has(
    task_of: Any,
    server: FakeRunqy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class KilledError(BaseException):
        """Stands for the end of the process."""

    def die(*_: Any) -> None:
        raise KilledError

    task = task_of(numbers(3))
    with monkeypatch.context() as patch:
        patch.setattr(BatchManifest, "forget", die)
        with pytest.raises(KilledError):
            task.run()
    # The retry comes so late that the deliveries have expired.
    for path in tmp_path.glob(f"{task.batch.batch_id}-*"):
        path.unlink()

    assert task.retry() == [0, 1, 2]
    assert server.chunks == [3]


@pytest.mark.usefixtures("transport")
def test_batch_answer_of_enqueue_lost_runs_no_job_twice(
    task_of: Any, server: FakeRunqy
) -> None:
    server.lost = AnswerLost("the connection was closed")
    task = task_of(numbers(5))
    with pytest.raises(ServerUnavailable):
        task.run()
    server.lost = None

    assert task.retry() == [0, 1, 2, 3, 4]
    assert len(server.enqueued) == 5


@pytest.mark.usefixtures("transport")
def test_batch_not_enqueued_is_enqueued_by_the_retry(
    task_of: Any, server: FakeRunqy
) -> None:
    server.error = ServerUnavailable("runqy is away.")
    task = task_of(numbers(2))
    with pytest.raises(ServerUnavailable):
        task.run()
    assert task.batch.enqueued == 0
    server.error = None

    assert task.retry() == [0, 1]


def test_batch_id_with_a_delivery_is_refused(task_of: Any, server: FakeRunqy) -> None:
    task = task_of(numbers(3))
    task.run()
    task.store.clear()

    with pytest.raises(DeliveryIdTaken):
        task.run()
    assert server.chunks == [3]
