# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a killed trigger's task was really given up by a user.

Airflow calls ``on_kill`` whenever a trigger is no longer assigned to its triggerer:
also when a stalled triggerer lost it to another one, and when a cleared task's next try
may already run. So the task's state and its XCom decide: every try writes which job it
waits for, and deletes what the try before it wrote.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import (
    GetTaskStates,
    GetXCom,
    TaskStatesResult,
    XComResult,
)

from runqy_provider.client.models import PENDING, RETRY, SCHEDULED
from runqy_provider.errors import JobVanished, RunqyError
from runqy_provider.jobs.submission import JOB_KEY

if TYPE_CHECKING:
    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    AnyTaskInstance = TaskInstanceDTO | RuntimeTaskInstanceProtocol
    from runqy_provider.hooks.runqy import RunqyHook

#: What a task is whose run was deleted; Airflow has no word for it.
DELETED = "deleted"

#: What a task is of which nothing is known just now.
UNKNOWN = "unknown"

#: Seconds that an answer may take while Airflow waits for a worker to end.
ANSWER_TIMEOUT = 3.0

#: States that a task leaves only by a user's hand.
ENDED = frozenset(
    {"success", "failed", "skipped", "removed", "upstream_failed", DELETED}
)

#: How often, and every how many seconds, to look at a task that is about to run again.
LOOKS, PAUSE = 20, 1.0


async def is_abandoned(ti: TaskInstanceDTO, job_id: str) -> bool:
    """Tell whether nobody will ask for this job's result any more.

    Args:
        ti: The task instance that the trigger waited for.
        job_id: The job.

    Returns:
        True where the task has ended or waits for another job; False where it waits
        for this one, on another triggerer or in a later try, and where in doubt.
    """
    for _ in range(LOOKS):
        state, job = await _state(ti), await _job(ti)
        if job is not None and job != job_id:
            return True  # cleared, and the new try has a job of its own
        if state in ENDED:
            return True  # marked, skipped, or its run was deleted
        if state == "deferred" and job == job_id:
            return False
        # Cleared and about to run, or resumed by the event of another triggerer.
        await asyncio.sleep(PAUSE)
    return False


def has_ended(ti: AnyTaskInstance) -> bool:
    """Tell whether a task was ended for good; for a worker's signal handler.

    Airflow also ends a worker whose task is to run again, as after a lost heartbeat or
    a clear: the next try may wait for the same job by then.

    Returns:
        False where the task will run again, and where nobody answers in time.
    """
    states: list[str] = []

    def ask() -> None:
        question = _question_of(ti)
        states.append(_state_in(task_runner.SUPERVISOR_COMMS.send(question), ti))

    # The signal may have come in the midst of another question, whose answer the
    # interrupted code must have first: then this one is not answered.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_TIMEOUT)
    return bool(states) and states[0] in ENDED


async def _state(ti: TaskInstanceDTO) -> str:
    return _state_in(await _ask(_question_of(ti)), ti)


def _question_of(ti: AnyTaskInstance) -> GetTaskStates:
    return GetTaskStates(
        dag_id=ti.dag_id,
        run_ids=[ti.run_id],
        task_ids=[ti.task_id],
        map_index=ti.map_index,
    )


def _state_in(answer: object, ti: AnyTaskInstance) -> str:
    if not isinstance(answer, TaskStatesResult):
        return UNKNOWN
    index = -1 if ti.map_index is None else ti.map_index
    name = ti.task_id if index < 0 else f"{ti.task_id}_{index}"
    state = answer.task_states.get(ti.run_id, {}).get(name, DELETED)
    # A task with no state is about to be scheduled: a user has just cleared it.
    return UNKNOWN if state is None else str(getattr(state, "value", state))


async def _job(ti: TaskInstanceDTO) -> str | None:
    answer = await _ask(
        GetXCom(
            key=JOB_KEY,
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=ti.map_index,
        )
    )
    value = answer.value if isinstance(answer, XComResult) else None
    return str(value.get("job_id")) if isinstance(value, dict) else None


async def _ask(message: GetTaskStates | GetXCom) -> Any:
    return await task_runner.SUPERVISOR_COMMS.asend(message)


#: States in which a job may be deleted: no result is lost, no work either.
UNBEGUN = (PENDING, SCHEDULED, RETRY)


def delete_unbegun(hook: RunqyHook, runqy_queue: str, job_id: str) -> str:
    """Delete a job that waits for a worker; needs the admin key.

    Returns:
        Words on what became of it, whatever happened.
    """
    try:
        state = hook.get_job(job_id).state
        deleted = state in UNBEGUN and hook.delete_job(runqy_queue, job_id)
    except RunqyError as error:
        return _trouble(job_id, error)
    return _words(job_id, state, deleted=deleted)


async def adelete_unbegun(hook: RunqyHook, runqy_queue: str, job_id: str) -> str:
    """Delete it from async code; see delete_unbegun."""
    try:
        state = (await hook.aget_job(job_id)).state
        deleted = state in UNBEGUN and await hook.adelete_job(runqy_queue, job_id)
    except RunqyError as error:
        return _trouble(job_id, error)
    return _words(job_id, state, deleted=deleted)


def _trouble(job_id: str, error: RunqyError) -> str:
    if isinstance(error, JobVanished):
        return f"Job {job_id} is gone from runqy already."
    return f"Job {job_id} was not deleted: {error}"


def _words(job_id: str, state: str, *, deleted: bool) -> str:
    if deleted:
        return f"Job {job_id} was deleted before it began."
    return f"Job {job_id} is {state} and is left alone: runqy cannot stop a job."
