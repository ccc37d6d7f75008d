"""RunqyOperator through Airflow's task runner, a real sandbox and a real receiver."""

from __future__ import annotations

import time
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from runqy_provider.errors import (
    DeliveryTimeout,
    JobFailed,
    Misconfigured,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.models import JobRef
from runqy_provider.operators import _execution, _task
from runqy_provider.operators._execution import Execution
from runqy_provider.operators.runqy import RunqyOperator
from runqy_provider.sinks.object_store.s3 import S3Sink
from tests.support.harness import outcome_of, run_of

if TYPE_CHECKING:
    from tests.support.stack import Gate, Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling")

QUICK = timedelta(seconds=20)


@pytest.mark.parametrize(
    ("sink", "value"),
    [
        ("webhook", {"a": [1, None]}),
        ("webhook", None),
        ("s3://results/some/prefix", "text"),
        ("s3://results", 0),
    ],
)
def test_operator_json_value_is_returned(sink: str, value: Any) -> None:
    assert outcome_of(run_of({"value": value}, sink=sink)) == value


@pytest.mark.parametrize("sink", ["webhook", "s3://results"])
def test_operator_waiting_task_defers_and_resumes(sink: str, gate: Gate) -> None:
    run = run_of({"value": 5, **gate.closed}, sink=sink).execute()

    assert run.state == "deferred"
    assert run.timeout > timedelta(hours=24)
    gate.open()
    event = run.fire()
    assert event["status"] == "completed"
    assert run.resume(event).value == 5


@pytest.mark.parametrize("sink", ["webhook", "s3://results"])
def test_operator_not_deferrable_returns_value(sink: str) -> None:
    run = run_of({"value": 5, "seconds": 0.3}, sink=sink, deferrable=False).execute()

    assert (run.state, run.value) == ("success", 5)


def test_operator_short_job_ends_without_deferral() -> None:
    run = run_of({"value": 1, "seconds": 0.3}, defer_after=QUICK).execute()

    assert (run.state, run.value) == ("success", 1)


@pytest.mark.parametrize(
    ("end_from_trigger", "state"), [(False, "success"), (None, "deferred")]
)
def test_operator_that_a_worker_must_end_waits_longer_before_it_defers(
    monkeypatch: pytest.MonkeyPatch, *, end_from_trigger: bool | None, state: str
) -> None:
    monkeypatch.setattr(_execution, "DEFER_AFTER_ON_WORKER", QUICK)
    monkeypatch.setattr(_execution, "DEFER_AFTER", timedelta(0))
    run = run_of(
        {"value": 1, "seconds": 0.3},
        defer_after=None,
        end_from_trigger=end_from_trigger,
    )

    assert run.execute().state == state
    assert _task.DEFER_AFTER < _task.DEFER_AFTER_ON_WORKER


@pytest.mark.parametrize(
    ("sink", "deferrable"), [("webhook", True), ("s3://results", False)]
)
def test_operator_job_failed_raises_error_of_handler(
    sink: str, *, deferrable: bool
) -> None:
    run = run_of({"error": "too dark"}, sink=sink, deferrable=deferrable)

    with pytest.raises(JobFailed, match="ValueError: too dark") as caught:
        outcome_of(run)
    assert caught.value.error_type == "ValueError"
    assert "raise ValueError" in str(caught.value.traceback)


def test_operator_s3_without_receiver_returns_values_and_failures(connect: Any) -> None:
    connect(without=("callback_secret",))

    assert outcome_of(run_of({"value": 7}, sink="s3://results/alone")) == 7
    with pytest.raises(JobFailed, match="too dark"):
        outcome_of(run_of({"error": "too dark"}, sink="s3://results/alone"))


def test_operator_guide_task_code_result_is_returned() -> None:
    by_webhook = run_of({"numbers": [1, 2]}, "guide_webhook", sink="webhook")
    by_s3 = run_of({"numbers": [3, 4]}, "guide_s3", sink="s3://results/elsewhere")

    assert outcome_of(by_webhook) == {"sum": 3}
    assert outcome_of(by_s3) == {"sum": 7}


def test_operator_sink_defaults_to_sink_of_connection(connect: Any) -> None:
    connect(sink="s3://results/by-default")
    run = run_of({"value": 1})

    assert outcome_of(run) == 1
    assert run.xcoms["runqy_job"]["sink"] == "s3://results/by-default"


def test_operator_sink_object_is_accepted() -> None:
    sink = S3Sink("results", "objects", aws_conn_id="aws_default")

    assert outcome_of(run_of({"value": 1}, sink=sink)) == 1


def test_operator_s3_sink_without_presign_returns_value() -> None:
    sink = S3Sink("results", "own-rights", presign=False)

    assert outcome_of(run_of({"value": 1}, sink=sink)) == 1


def test_operator_xcoms_record_job_and_delivery() -> None:
    run = run_of({"value": 1})
    outcome_of(run)

    job, delivery = run.xcoms["runqy_job"], run.xcoms["runqy_delivery"]
    assert job["runqy_queue"] == "helper.default"
    assert job["delivery_id"] == delivery["delivery_id"]
    assert delivery["status"] == "completed"
    assert delivery["where"].startswith("inbox://runqy_default/")


def test_operator_xcoms_trigger_and_fields_contain_no_secret(
    stack: Stack, gate: Gate
) -> None:
    run = run_of({"value": 1, **gate.closed}, sink="s3://results").execute()
    gate.open()
    event = run.fire()
    assert isinstance(run.task, RunqyOperator)
    shown = str((run.xcoms, run.trigger.serialize(), event, run.task.payload))

    assert "token=" not in shown
    assert "Signature" not in shown
    assert stack.connections["runqy_default"]["password"] not in shown


def test_operator_each_try_and_map_index_has_own_delivery_id() -> None:
    ids = []
    for try_number, map_index in ((1, -1), (2, -1), (1, 0), (1, 1)):
        run = run_of({"value": 1})
        run.run_id, run.try_number, run.map_index = "same", try_number, map_index
        outcome_of(run)
        ids.append(run.xcoms["runqy_job"]["delivery_id"])

    assert len(set(ids)) == 4


def test_operator_two_triggers_of_one_delivery_fire_same_event(gate: Gate) -> None:
    run = run_of({"value": 1, **gate.closed}).execute()
    gate.open()

    assert run.fire() == run.fire()


def test_operator_deadline_passed_error_names_sources_and_job(
    gate: Gate, stack: Stack
) -> None:
    limit = timedelta(seconds=2)
    run = run_of(dict(gate.closed), "silent", delivery_timeout=limit).execute()
    event = run.fire()

    with pytest.raises(DeliveryTimeout) as caught:
        raise run.resume(event).error
    message = str(caught.value)
    job = run.xcoms["runqy_job"]
    for expected in (
        f"/v1/deliveries/{job['delivery_id']}",
        stack.receiver_url,
        f"127.0.0.1:{stack.sandbox.redis_port}",
        "Last successful poll: 20",
        f"job {job['job_id']} in queue 'silent.default' is active",
    ):
        assert expected in message
    assert "token" not in message


def test_operator_execution_timeout_shortens_deadline() -> None:
    run = run_of({}, "idle", execution_timeout=timedelta(seconds=30)).execute()

    assert run.trigger.deadline < time.time() + 31


@pytest.mark.parametrize("delivery_id", ["a/b", "../a", "a b", "", "x" * 200, "a\n"])
def test_delivery_id_with_unsafe_characters_is_refused(delivery_id: str) -> None:
    from runqy_provider.inbox.callback_url import check_delivery_id

    with pytest.raises(Misconfigured, match="is not a valid delivery_id"):
        check_delivery_id(delivery_id)


class Supervisor:
    """Gives the state of a task whose worker Airflow ends."""

    def __init__(self, state: str) -> None:
        self._state = state

    def send(self, question: Any) -> Any:
        from airflow.sdk.execution_time.comms import (
            ErrorResponse,
            GetTaskStates,
            TaskStatesResult,
        )

        if not isinstance(question, GetTaskStates):
            return ErrorResponse()
        [task_id], [run_id] = question.task_ids or [], question.run_ids or []
        return TaskStatesResult(task_states={run_id: {task_id: self._state}})


@pytest.mark.parametrize(
    ("state", "is_deleted"),
    [
        ("failed", True),
        ("running", False),  # the next try may wait for it by now
    ],
)
def test_operator_killed_task_deletes_job_only_if_task_ended(
    state: str,
    is_deleted: bool,
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    connect: Any,
) -> None:
    from airflow.sdk.execution_time import task_runner

    run = run_of({}, "idle").execute()
    task = run.task
    assert isinstance(task, RunqyOperator)
    ti: Any = SimpleNamespace(dag_id="d", run_id=run.run_id, task_id="t", map_index=-1)
    task.on_kill()  # a copy of the task ran: this one has enqueued nothing
    monkeypatch.setattr(
        task_runner, "SUPERVISOR_COMMS", Supervisor(state), raising=False
    )

    def kill() -> None:
        execution = Execution(task, RunqyOperator)
        execution.job = JobRef(**run.xcoms["runqy_job"])
        execution.ti = ti
        execution.kill()

    kill()

    with Redis.from_url(stack.sandbox.redis_url) as redis:
        key = f"asynq:{{idle.default}}:t:{run.xcoms['runqy_job']['job_id']}"
        assert bool(redis.exists(key)) is not is_deleted
    kill()  # the job is deleted already: no error
    connect(without=("admin_api_key",), fields={"password": "wrong"})
    kill()  # not allowed: no error


def test_operator_execution_timeout_in_slot_raises_delivery_timeout() -> None:
    limit = timedelta(seconds=5)
    run = run_of({}, "idle", deferrable=False, execution_timeout=limit)

    with pytest.raises(DeliveryTimeout, match="execution_timeout"):
        outcome_of(run)


def test_operator_put_url_uses_signature_version_4(stack: Stack) -> None:
    """In us-east-1, boto3 signs with version 2 by default, which new buckets refuse."""
    run = run_of({}, "idle", sink="s3://results/signed").execute()
    with RunqyHook() as hook:
        payload = hook.get_job(run.xcoms["runqy_job"]["job_id"]).payload

    assert "X-Amz-Signature=" in payload["delivery"]["put_url"]
