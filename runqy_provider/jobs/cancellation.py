# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Delete a job, but only if no attempt waits for it any more.

Airflow calls a trigger's ``on_kill`` whenever the trigger is no longer assigned to its
triggerer: also when a stalled triggerer lost it to another one, and when the next try
of a cleared task may already run. So the state of the task and its XCom decide: every
try writes which job it waits for, and deletes what the previous try wrote.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetTaskStates, TaskStatesResult

from runqy_provider.airflow_compat import (
    ask,
    in_thread,
    map_index_of,
    pull_xcom,
    supervisor_lock,
)
from runqy_provider.client.models import PENDING, RETRY, SCHEDULED
from runqy_provider.errors import JobVanished, RunqyError
from runqy_provider.models import JOB_KEY

if TYPE_CHECKING:
    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from runqy_provider.hooks.runqy import RunqyHook

    AnyTaskInstance = TaskInstanceDTO | RuntimeTaskInstanceProtocol

#: Our own state of a task whose DAG run was deleted.
DELETED = "deleted"

#: Our own state of a task whose state cannot be read at the moment.
UNKNOWN = "unknown"

#: Seconds to wait for an answer while Airflow waits for a worker to end.
ANSWER_TIMEOUT = 3.0

#: States that a task leaves only if a user clears it.
ENDED = frozenset(
    {"success", "failed", "skipped", "removed", "upstream_failed", DELETED}
)

#: How often, and at what interval in seconds, the state of a task that is about to run
#: is read.
LOOKS, INTERVAL = 20, 1.0

#: States in which a job may be deleted: neither a result nor work is lost by it.
PENDING_STATES = (PENDING, SCHEDULED, RETRY)


async def is_abandoned(ti: TaskInstanceDTO, job_id: str) -> bool:
    """Return whether the result of a job will not be asked for any more.

    Args:
        ti: The task instance that the trigger waited for.
        job_id: The job.

    Returns:
        True if the task has ended or waits for another job; False if it waits for this
        one, on another triggerer or in a later try, or if that is not known.
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
        await asyncio.sleep(INTERVAL)
    return False


def has_ended(ti: AnyTaskInstance) -> bool:
    """Return whether a task was ended for good; for a worker's signal handler.

    Airflow also ends a worker whose task will run again, as after a lost heartbeat or a
    clear: the next try may already wait for the same job.

    Returns:
        False if the task will run again, or if Airflow does not answer in time.
    """
    states: list[str] = []
    supervisor = task_runner.SUPERVISOR_COMMS

    def find_state() -> None:
        with supervisor_lock:
            states.append(_state_in(supervisor.send(_question_of(ti)), ti))

    # The signal may have interrupted another request to Airflow, whose answer that code
    # must get first: then this request is not answered.
    finding = threading.Thread(target=find_state, daemon=True)
    finding.start()
    finding.join(ANSWER_TIMEOUT)
    return bool(states) and states[0] in ENDED


def is_last_attempt(ti: RuntimeTaskInstanceProtocol) -> bool:
    """Return whether no other attempt of a task follows if this one fails."""
    tries: int = ti.max_tries or 0
    return ti.try_number > tries


def delete_if_pending(hook: RunqyHook, runqy_queue: str, job_id: str) -> str:
    """Delete a job that waits for a worker; needs the admin key.

    Returns:
        A sentence for the log; errors of runqy are part of it.
    """
    try:
        job = hook.get_job(job_id)
        deleted = job.state in PENDING_STATES and hook.delete_job(runqy_queue, job_id)
    except JobVanished:
        return f"runqy does not have job {job_id} any more."
    except RunqyError as error:
        return f"Job {job_id} was not deleted: {error}"
    if not deleted:
        return (
            f"Job {job_id} is {job.state} and is not deleted: runqy cannot stop a job."
        )
    has_run = job.state == RETRY or job.retried > 0
    then = "ran again" if has_run else "started"
    return f"Job {job_id} was deleted before it {then}."


async def _state(ti: TaskInstanceDTO) -> str:
    return _state_in(await ask(_question_of(ti)), ti)


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
    index = map_index_of(ti)
    name = ti.task_id if index < 0 else f"{ti.task_id}_{index}"
    state = answer.task_states.get(ti.run_id, {}).get(name, DELETED)
    # A task with no state is about to be scheduled: a user has just cleared it.
    return UNKNOWN if state is None else str(getattr(state, "value", state))


async def _job(ti: TaskInstanceDTO) -> str | None:
    value = await in_thread(pull_xcom, ti, JOB_KEY)
    return str(value.get("job_id")) if isinstance(value, dict) else None
