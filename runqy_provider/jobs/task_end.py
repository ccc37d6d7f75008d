# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the triggerer may end a task, and what it must know for that.

A task that ends in the triggerer needs no second worker start and cannot meet
Airflow's resume race. But Airflow then skips much of what it does at the end of a task
on a worker (``finalize`` and ``_handle_current_task_success`` of its task runner), so
this is done only for tasks that lose nothing by it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.definitions.mappedoperator import is_mappable_value
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import SetXCom

from runqy_provider.airflow_compat import (
    conf,
    count_success,
    get_listener_manager,
    in_thread,
    map_index_of,
    pull_xcom,
    push_xcom,
    stats_tags,
)
from runqy_provider.errors import Misconfigured, RunqyError
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.jobs.outcome import ReceivedDelivery
from runqy_provider.models import DELIVERY_KEY, LINK_KEY, RETURN_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.sdk import Context

    from runqy_provider.models import DeliveryEvent
    from runqy_provider.settings import Settings

log = logging.getLogger(__name__)

#: Methods that run again on a worker after the wait; a subclass may override them.
RESUMED = ("execute_complete", "resume_execution")

#: Threads for all triggers of a triggerer: its supervisor answers one at a time anyway.
THREADS = 8

#: The most bytes that surround a value in a stored delivery.
ENVELOPE = 8192

#: Seconds until an inbox may drop a result that was read. After that time Airflow has
#: stored the event that ends the task; before, a trigger that runs again must find the
#: result.
FORGET_AFTER = 60.0

#: The first request of this process; the event loop itself does not keep a reference to
#: a task.
_preparing: set[asyncio.Task[None]] = set()


@dataclass(frozen=True)
class TaskEnd:
    """How to end a task. Plain JSON in the trigger's arguments.

    Attributes:
        operator: Class name of the operator, for Airflow's metrics.
        tags: Airflow's metric tags of the task instance.
        started_at: When the task started, in seconds since 1970.
        pushes_result: Whether the result goes to XCom (``do_xcom_push``).
        pushes_receipt: Whether the XCom ``runqy_delivery`` and the link are written.
        is_expanded_over: Whether a mapped task downstream needs the result's length.
        is_dag_result: Whether the result is the DAG's.
        returns: What the task returns; see ``RunqyResultHook.collect``.
    """

    operator: str
    tags: dict[str, str] = field(default_factory=dict)
    started_at: float | None = None
    pushes_result: bool = True
    pushes_receipt: bool = True
    is_expanded_over: bool = False
    is_dag_result: bool = False
    returns: str = "auto"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def task_end_of(
    task: BaseOperator,
    context: Context,
    *,
    wanted: bool | None,
    own: type[BaseOperator],
    pushes_receipt: bool,
    returns: str,
) -> TaskEnd | None:
    """Decide whether the triggerer may end a task.

    Args:
        task: The task, as it is executed.
        context: Its context.
        wanted: The task's ``end_from_trigger``: None decides by what would be lost,
            True requires it, False never does it.
        own: Our base class of the task, to detect overridden methods.
        pushes_receipt: See ``TaskEnd``.
        returns: See ``TaskEnd``.

    Returns:
        What the trigger must know; None if a worker must end the task.

    Raises:
        Misconfigured: It is required, but something would be lost.
    """
    if wanted is False:
        return None
    lost = list(losses(task, own))
    if lost and wanted:
        raise Misconfigured(
            f"end_from_trigger=True would lose {', '.join(lost)} of task "
            f"{task.task_id!r}. Nothing was enqueued. Leave end_from_trigger out, so "
            "that a worker ends this task, or remove these from the task."
        )
    if lost:
        log.info("A worker will end this task, because it has %s.", ", ".join(lost))
        return None
    ti: Any = context["ti"]
    is_mapped = ti.map_index is not None and ti.map_index >= 0
    return TaskEnd(
        operator=type(task).__name__,
        tags=stats_tags(ti),
        started_at=ti.start_date.timestamp() if ti.start_date else None,
        pushes_result=task.do_xcom_push,
        pushes_receipt=pushes_receipt,
        is_expanded_over=not is_mapped
        and next(task.iter_mapped_dependants(), None) is not None,
        is_dag_result=getattr(task, "returns_dag_result", False),
        returns=returns,
    )


def losses(task: BaseOperator, own: type[BaseOperator]) -> Iterator[str]:
    """Yield what a task would lose if the triggerer ended it, for messages."""
    if task.outlets:
        yield "asset events of its outlets"
    if task.on_success_callback:
        yield "on_success_callback"
    # Airflow's own test for both; the attribute is what ``post_execute=`` sets.
    if (
        task._post_execute_hook is not None  # noqa: SLF001 - no public name
        or type(task).post_execute is not BaseOperator.post_execute
    ):
        yield "post_execute"
    for name in RESUMED:
        if getattr(type(task), name) is not getattr(own, name):
            yield f"{name} of {type(task).__name__}"
    if task.multiple_outputs:
        yield "multiple_outputs"
    if task.map_index_template:
        yield "map_index_template"
    if task.overwrite_rtif_after_execution:
        yield "rendered template fields that are written after execution"
    known = {type(link) for link in own.operator_extra_links}
    links = [link for link in task.operator_extra_links if type(link) not in known]
    if links:
        yield f"the links {', '.join(link.name for link in links)}"
    yield from _of_the_deployment()


def _of_the_deployment() -> Iterator[str]:
    hook = get_listener_manager().hook.on_task_instance_success
    listeners = [one.plugin_name for one in hook.get_hookimpls()]
    if listeners:
        yield f"calls of listeners ({', '.join(listeners)})"
    if conf.getboolean("state_store", "clear_on_success", fallback=False):
        yield "[state_store] clear_on_success"
    if conf.getboolean("traces", "otel_on", fallback=False):
        yield "the task's trace span ([traces] otel_on)"


class WorkerNeededError(Exception):
    """Only a worker can end this task correctly."""


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="runqy-end-task")


def prepare(ti: TaskInstanceDTO) -> None:
    """Send this triggerer's supervisor a first request, once per process.

    A supervisor builds Airflow's execution API at its first request, which takes about
    5 s on an idle machine. If a wait begins with one, most of that time is over before
    the first result arrives.
    """
    if not _preparing:
        asking = asyncio.create_task(_ask(ti))
        _preparing.add(asking)


async def _ask(ti: TaskInstanceDTO) -> None:
    try:
        await in_thread(pull_xcom, ti, DELIVERY_KEY)
    except Exception:
        log.debug("Airflow could not be asked yet", exc_info=True)


async def end_task(
    ti: TaskInstanceDTO, end: TaskEnd, settings: Settings, event: DeliveryEvent
) -> bool:
    """Read a result that has arrived and write the task's XComs.

    If a trigger runs again, after its triggerer was killed or stalled, it reads the
    same result and writes the same XComs.

    Args:
        ti: The task instance.
        end: How to end it.
        settings: The runqy connection and the options.
        event: The event of the delivery that has arrived.

    Returns:
        True if all is written, so that the task may end; False if a worker must end it,
        which then raises the error that was only logged here.
    """
    limit = settings.config.xcom_limit + ENVELOPE
    results = RunqyResultHook.from_settings(
        dataclasses.replace(settings, max_read_bytes=limit)
    )
    received = ReceivedDelivery(event, results, end.returns)
    is_cancelled = Event()
    try:
        await in_thread(_write, ti, end, received, is_cancelled, executor=_threads())
    except asyncio.CancelledError:
        is_cancelled.set()
        raise
    except (RunqyError, WorkerNeededError) as error:
        log.info("A worker will end this task: %s", error)
        return False
    except Exception:
        # The worker will meet the same error, where Airflow can handle it.
        log.warning("A worker will end this task, as this failed:", exc_info=True)
        return False
    asyncio.get_running_loop().call_later(FORGET_AFTER, _forget_in_thread, received)
    return True


def _write(
    ti: TaskInstanceDTO, end: TaskEnd, received: ReceivedDelivery, is_cancelled: Event
) -> None:
    received.read()
    value = received.value if end.pushes_result else None
    length = None
    if end.is_expanded_over:
        if not is_mappable_value(value):
            raise WorkerNeededError("a mapped task cannot expand over its result.")
        length = len(value)
    if is_cancelled.is_set():
        return
    if end.pushes_receipt:
        push_xcom(ti, DELIVERY_KEY, received.receipt)
        if received.download_url:
            # As Airflow does on a worker: without any custom XCom backend.
            link = SetXCom(
                key=LINK_KEY,
                value=received.download_url,
                dag_id=ti.dag_id,
                task_id=ti.task_id,
                run_id=ti.run_id,
                map_index=map_index_of(ti),
            )
            task_runner.SUPERVISOR_COMMS.send(link)
    if value is not None:
        push_xcom(ti, RETURN_KEY, value, length=length, is_dag_result=end.is_dag_result)
    duration = None if end.started_at is None else time.time() - end.started_at
    count_success(end.operator, end.tags, duration)
    log.info("The triggerer ends the task: no second worker is needed.")


def _forget_in_thread(received: ReceivedDelivery) -> None:
    _threads().submit(received.forget).add_done_callback(_note_failure)


def _note_failure(forgotten: Future[None]) -> None:
    error = forgotten.exception()
    if error is not None:
        log.warning("A delivery stays in the inbox for its whole TTL: %s", error)
