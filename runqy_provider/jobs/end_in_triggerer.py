# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""End a task in the triggerer: read its result, write its XComs, count it.

All of this blocks (networks, a custom XCom backend), so it runs in a few threads,
beside the event loop that all triggers share.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.mappedoperator import is_mappable_value
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import SetXCom
from airflow.sdk.execution_time.xcom import XCom

from runqy_provider.airflow_compat import count_success, in_thread, map_index_of
from runqy_provider.errors import RunqyError
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.jobs.received import ReceivedDelivery
from runqy_provider.models import DELIVERY_KEY, LINK_KEY, RETURN_KEY

if TYPE_CHECKING:
    from airflow.executors.workloads.task import TaskInstanceDTO

    from runqy_provider.context import SinkContext
    from runqy_provider.jobs.task_end import TaskEnd
    from runqy_provider.models import DeliveryEvent

log = logging.getLogger(__name__)

#: Threads for all triggers of a triggerer: its supervisor answers one at a time anyway.
THREADS = 8

#: The most bytes that surround a value in a stored delivery.
ENVELOPE = 8192

#: Seconds until an inbox may drop what was read. By then Airflow has stored the event
#: that ends the task; until then a trigger that runs again must find the result again.
FORGET_AFTER = 60.0


#: The first question of this process; the event loop itself does not keep a reference
#: to a task.
_preparing: set[asyncio.Task[None]] = set()


class WorkerNeededError(Exception):
    """Only a worker can end this task as Airflow expects it."""


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="runqy-end-task")


def prepare(ti: TaskInstanceDTO) -> None:
    """Ask this triggerer's supervisor something, the first time in a process.

    A supervisor builds Airflow's execution API at its first question, which takes some
    5 s on an idle machine. Asked as a wait begins, most of that has passed before the
    first result arrives.
    """
    if not _preparing:
        asking = asyncio.create_task(_ask(ti))
        _preparing.add(asking)


async def _ask(ti: TaskInstanceDTO) -> None:
    try:
        await in_thread(
            functools.partial(XCom.get_value, ti_key=ti.key, key=DELIVERY_KEY)
        )
    except Exception:
        log.debug("Airflow could not be asked yet", exc_info=True)


async def end_task(
    ti: TaskInstanceDTO, end: TaskEnd, context: SinkContext, event: DeliveryEvent
) -> bool:
    """Read a result that has arrived and write the task's XComs.

    The same result is read and the same XComs are written where a trigger does this
    again, after its triggerer was killed or stalled.

    Args:
        ti: The task instance.
        end: How to end it.
        context: The runqy connection and the options.
        event: The event of the delivery that has arrived.

    Returns:
        True where all is written, so that the task may end; False where a worker must
        end it, which then raises what was only logged here.
    """
    limit = context.config.xcom_limit + ENVELOPE
    results = RunqyResultHook.from_context(
        dataclasses.replace(context, max_read_bytes=limit)
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
    names: dict[str, Any] = {
        "dag_id": ti.dag_id,
        "task_id": ti.task_id,
        "run_id": ti.run_id,
        "map_index": map_index_of(ti),
    }
    if end.pushes_receipt:
        XCom.set(key=DELIVERY_KEY, value=received.receipt, **names)
        if received.download_url:
            # As Airflow does it on a worker: past any custom XCom backend.
            link = SetXCom(key=LINK_KEY, value=received.download_url, **names)
            task_runner.SUPERVISOR_COMMS.send(link)
    if value is not None:
        XCom.set(
            key=RETURN_KEY,
            value=value,
            _mapped_length=length,
            **({"dag_result": True} if end.is_dag_result else {}),
            **names,
        )
    duration = None if end.started_at is None else time.time() - end.started_at
    count_success(end.operator, end.tags, duration)
    log.info("The triggerer ends the task: no second worker is needed.")


def _forget_in_thread(received: ReceivedDelivery) -> None:
    _threads().submit(received.forget).add_done_callback(_note_failure)


def _note_failure(forgotten: Future[None]) -> None:
    error = forgotten.exception()
    if error is not None:
        log.warning("A delivery stays in the inbox for its whole TTL: %s", error)
