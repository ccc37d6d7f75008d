"""Whether a task was ended for good, and what is said of its job then."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, TaskStatesResult

from runqy_provider.client import models as states
from runqy_provider.client.models import Job
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.cancellation import delete_if_pending, has_ended

if TYPE_CHECKING:
    from tests.unit.fake_runqy import FakeRunqy

NO_ANSWER = "no answer"


class Supervisor:
    """Gives the state of a task whose worker Airflow ends."""

    def __init__(self, state: str | None) -> None:
        self._state = state

    def send(self, question: Any) -> Any:
        if self._state == NO_ANSWER:
            return ErrorResponse()
        [task_id], [run_id] = question.task_ids, question.run_ids
        states = {} if self._state == "deleted" else {task_id: self._state}
        return TaskStatesResult(task_states={run_id: states})


@pytest.mark.parametrize(
    ("state", "is_ended"),
    [
        ("failed", True),
        ("success", True),
        ("skipped", True),
        ("deleted", True),
        # The next try may wait for the same job by now:
        ("running", False),
        ("restarting", False),
        ("up_for_retry", False),
        ("deferred", False),
        (None, False),
        (NO_ANSWER, False),
    ],
)
def test_has_ended_is_true_for_final_states_only(
    state: str | None, monkeypatch: pytest.MonkeyPatch, *, is_ended: bool
) -> None:
    monkeypatch.setattr(
        task_runner, "SUPERVISOR_COMMS", Supervisor(state), raising=False
    )
    ti: Any = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)

    assert has_ended(ti) is is_ended


@pytest.mark.parametrize(
    ("state", "retried", "end"),
    [
        (states.PENDING, 0, "was deleted before it started."),
        (states.PENDING, 1, "was deleted before it ran again."),
        (states.RETRY, 0, "was deleted before it ran again."),
        (states.ACTIVE, 0, "is active and is not deleted: runqy cannot stop a job."),
    ],
)
def test_delete_if_pending_says_whether_the_job_has_run(
    server: FakeRunqy, state: str, retried: int, end: str
) -> None:
    server.jobs["id"] = Job("id", "q.default", state, retried=retried)

    assert delete_if_pending(RunqyHook(), "q.default", "id") == f"Job id {end}"
