# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What differs between the versions of Airflow, from 3.0.6 on.

Names that moved are resolved when they are first asked for, so that a DAG file that
imports an operator loads no more of Airflow than it needs.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import pkgutil
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from airflow import __version__
from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from concurrent.futures import ThreadPoolExecutor

    from airflow.sdk import BaseHook, Connection
    from airflow.sdk.bases.decorator import determine_kwargs
    from airflow.sdk.configuration import conf
    from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS
    from airflow.sdk.exceptions import (
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        TaskDeferralTimeout,
    )
    from airflow.sdk.listener import get_listener_manager
    from airflow.sdk.serde import deserialize, serialize
    from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

T = TypeVar("T")

__all__ = [
    "KNOWN_CONTEXT_KEYS",
    "PROCESS_CONTEXT",
    "RELEASE",
    "SUPERVISOR_PIPE_IS_SAFE",
    "AdvanceItem",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "BaseHook",
    "SharedStreamProducer",
    "TaskDeferralTimeout",
    "ask",
    "column_of",
    "conf",
    "count_success",
    "deserialize",
    "determine_kwargs",
    "get_connection",
    "get_listener_manager",
    "identity_of",
    "in_thread",
    "map_index_of",
    "may_ask_database",
    "metrics",
    "pull_xcom",
    "push_xcom",
    "readable_connections",
    "resolve",
    "serialize",
    "stats_tags",
    "supervisor_lock",
]

#: Where a name is, the newest path first. ``object`` stands for a base class that
#: an older Airflow does not have, and does not need.
_PATHS = {
    "AdvanceItem": ("airflow.triggers.shared_stream:AdvanceItem", "builtins:object"),
    "AirflowNotFoundException": (
        "airflow.sdk.exceptions:AirflowNotFoundException",
        "airflow.exceptions:AirflowNotFoundException",
    ),
    "AirflowSensorTimeout": (
        "airflow.sdk.exceptions:AirflowSensorTimeout",
        "airflow.exceptions:AirflowSensorTimeout",
    ),
    "AirflowSkipException": (
        "airflow.sdk.exceptions:AirflowSkipException",
        "airflow.exceptions:AirflowSkipException",
    ),
    "BaseHook": ("airflow.sdk:BaseHook", "airflow.hooks.base:BaseHook"),
    "KNOWN_CONTEXT_KEYS": (
        "airflow.sdk.definitions.context:KNOWN_CONTEXT_KEYS",
        "airflow.utils.context:KNOWN_CONTEXT_KEYS",
    ),
    "SharedStreamProducer": (
        "airflow.triggers.shared_stream:SharedStreamProducer",
        "builtins:object",
    ),
    "TaskDeferralTimeout": (
        "airflow.sdk.exceptions:TaskDeferralTimeout",
        "airflow.exceptions:TaskDeferralTimeout",
    ),
    "conf": ("airflow.sdk.configuration:conf", "airflow.configuration:conf"),
    "deserialize": (
        "airflow.sdk.serde:deserialize",
        "airflow.serialization.serde:deserialize",
    ),
    "determine_kwargs": (
        "airflow.sdk.bases.decorator:determine_kwargs",
        "airflow.utils.operator_helpers:determine_kwargs",
    ),
    "get_listener_manager": (
        "airflow.sdk.listener:get_listener_manager",
        "airflow.listeners.listener:get_listener_manager",
    ),
    "serialize": (
        "airflow.sdk.serde:serialize",
        "airflow.serialization.serde:serialize",
    ),
}


def __getattr__(name: str) -> Any:
    paths = _PATHS.get(name)
    if paths is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = resolve(*paths)
    return value


def resolve(*paths: str) -> Any:
    """Return the object at the first of these paths that this Airflow has.

    Args:
        paths: ``module:name``, or ``module``.

    Raises:
        ImportError: It has none of them.
    """
    for path in paths:
        try:
            return pkgutil.resolve_name(path)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"Airflow {__version__} has none of {', '.join(paths)}.")


#: Set by Airflow in its API server, and by its commands that read connections.
PROCESS_CONTEXT = "_AIRFLOW_PROCESS_CONTEXT"

#: The module with the pipe to the supervisor, in a process that has one.
_TASK_RUNNER = "airflow.sdk.execution_time.task_runner"

#: The version of Airflow, as in ``(3, 1, 8)``.
RELEASE = Version(__version__).release

#: Whether any thread may send a request to a triggerer's supervisor, and cancel it.
#: Before 3.2.2 both end the triggerer with all its triggers (apache/airflow#64620 and
#: #67380): "Response read out of order".
SUPERVISOR_PIPE_IS_SAFE = RELEASE >= (3, 2, 2)

#: Held while a worker asks its supervisor from a thread: before 3.2 their pipe has no
#: lock of its own.
supervisor_lock = threading.RLock()

#: Tasks in progress: the event loop itself does not keep a reference to a task.
_running: set[asyncio.Future[Any]] = set()


async def in_thread(
    function: Callable[..., T], *args: Any, executor: ThreadPoolExecutor | None = None
) -> T:
    """Call a function that blocks, and may call Airflow, in a thread.

    Args:
        function: The function; it has the caller's context variables.
        args: Its arguments.
        executor: Whose threads to use; by default those of the event loop.
    """
    if SUPERVISOR_PIPE_IS_SAFE:
        call = functools.partial(contextvars.copy_context().run, function, *args)
        return await asyncio.get_running_loop().run_in_executor(executor, call)
    from asgiref.sync import sync_to_async  # noqa: PLC0415 - not on a newer Airflow

    # In a thread of asgiref, Airflow sends the request from this event loop.
    deferred = sync_to_async(function, thread_sensitive=False, executor=executor)
    return await _to_its_end(deferred(*args))


async def ask(question: Any) -> Any:
    """Ask the supervisor of this triggerer; return its answer."""
    from airflow.sdk.execution_time import task_runner  # noqa: PLC0415 - heavy

    # If a request is cancelled, the next one gets its answer.
    return await _to_its_end(task_runner.SUPERVISOR_COMMS.asend(question))


def get_connection(conn_id: str) -> Connection:
    """Fetch a connection, in any thread.

    Raises:
        AirflowNotFoundException: It does not exist, or Airflow could not be asked.
    """
    hook = __getattr__("BaseHook")
    try:
        with supervisor_lock:
            connection: Connection = hook.get_connection(conn_id)
    except ImportError as error:
        # Airflow 3.1.0 raises this in an API server, where there is no supervisor.
        if error.name != _TASK_RUNNER:
            raise
        not_found = __getattr__("AirflowNotFoundException")
        raise not_found(f"The conn_id `{conn_id}` isn't defined") from error
    return connection


def column_of(model: Any, name: str) -> Any:
    """Return a column of a table; NULL if this Airflow does not have it yet."""
    from sqlalchemy import null  # noqa: PLC0415 - not needed to parse a DAG

    return getattr(model, name, null().label(name))


def may_ask_database() -> bool:
    """Return whether this process may ask Airflow's database: an API server may."""
    if hasattr(sys.modules.get(_TASK_RUNNER), "SUPERVISOR_COMMS"):
        return False  # a task, a trigger or a DAG file
    given = os.environ.get(PROCESS_CONTEXT)
    # Before 3.2 an API server does not set it.
    is_api_server = "airflow.api_fastapi.app" in sys.modules
    return given == "server" or (given is None and is_api_server)


def readable_connections(
    manager: Any, conn_ids: set[str], user: Any, team: str | None
) -> set[str]:
    """Return the connections of a team that a user may read.

    Args:
        manager: Airflow's auth manager.
        conn_ids: The connections.
        user: The user.
        team: The team.
    """
    if hasattr(manager, "filter_authorized_connections"):
        found: set[str] = manager.filter_authorized_connections(
            conn_ids=conn_ids, user=user, method="GET", team_name=team
        )
        return found
    details = resolve(
        "airflow.api_fastapi.auth.managers.models.resource_details:ConnectionDetails"
    )
    return {
        conn_id
        for conn_id in conn_ids
        if manager.is_authorized_connection(
            method="GET", user=user, details=details(conn_id=conn_id)
        )
    }


def push_xcom(
    ti: Any,
    key: str,
    value: Any,
    *,
    length: int | None = None,
    is_dag_result: bool = False,
) -> None:
    """Write an XCom of the task that a trigger waits for, as a worker does it.

    Args:
        ti: The task instance, as the triggerer has it.
        key: The key.
        value: What Airflow can store.
        length: How many tasks are mapped over the value; None if none is.
        is_dag_result: Whether it is the result of the DAG, too.
    """
    from airflow.sdk.execution_time.xcom import XCom  # noqa: PLC0415 - heavy

    more = {"dag_result": True} if is_dag_result else {}
    if hasattr(XCom, "_push"):  # from 3.4 on, the only way to say the length
        XCom._push(ti, key, value, mapped_length=length, **more)  # noqa: SLF001
    else:
        XCom.set(key, value, _mapped_length=length, **more, **_place_of(ti))


def pull_xcom(ti: Any, key: str) -> Any:
    """Read an XCom of the task that a trigger waits for; None if there is none.

    From 3.4 on Airflow refuses this to a trigger whose task has a newer try. The
    question is then asked without saying whose it is, and answered for the newer try;
    in a loop there is no answer, as Airflow does not know which iteration is meant.

    Args:
        ti: The task instance, as the triggerer has it.
        key: The key.
    """
    from airflow.sdk.bases import xcom  # noqa: PLC0415 - heavy
    from airflow.sdk.exceptions import AirflowRuntimeError  # noqa: PLC0415
    from airflow.sdk.execution_time.xcom import XCom  # noqa: PLC0415

    contexts = [contextvars.copy_context()]
    asker = getattr(xcom, "_current_trigger_ti", None)
    if asker is not None:
        contexts.append(contextvars.copy_context())
        contexts[-1].run(asker.set, None)
    for context in contexts:
        with suppress(AirflowRuntimeError, TypeError):  # what an error as answer raises
            return context.run(XCom.get_one, key=key, **_place_of(ti))
    return None


def _place_of(ti: Any) -> dict[str, Any]:
    # Not ``ti.key``: in a loop of 3.4 that has the iteration as its map index.
    return {
        "dag_id": ti.dag_id,
        "task_id": ti.task_id,
        "run_id": ti.run_id,
        "map_index": map_index_of(ti),
    }


def metrics() -> Any:
    """Return Airflow's statistics: with ``incr``, ``gauge`` and ``timing``.

    From 3.2 on there are two copies of them: one is set up in the processes of tasks,
    the other in all others.
    """
    part = "sdk.observability" if _is_task_process() else "observability"
    module = resolve(f"airflow.{part}.stats", "airflow.stats")
    return module if hasattr(module, "incr") else module.Stats


def _is_task_process() -> bool:
    runner = sys.modules.get(_TASK_RUNNER)
    is_triggerer = "airflow.jobs.triggerer_job_runner" in sys.modules
    return hasattr(runner, "SUPERVISOR_COMMS") and not is_triggerer


def stats_tags(ti: Any) -> dict[str, str]:
    """Return the tags of Airflow's own metrics of a task instance."""
    tags: Mapping[str, str] | None = getattr(ti, "stats_tags", None)
    return {"dag_id": ti.dag_id, "task_id": ti.task_id} if tags is None else dict(tags)


def count_success(
    operator: str, tags: Mapping[str, str], seconds: float | None
) -> None:
    """Count a task that succeeded, with the metrics that a worker would have sent.

    Args:
        operator: Class name of its operator.
        tags: What ``stats_tags`` returned.
        seconds: How long it took; None if that is not known.
    """
    if RELEASE < (3, 1):
        return  # its workers send none of these
    statistics = metrics()
    name = "operator" if RELEASE < (3, 3) else "operator_name"
    statistics.incr("operator_successes", tags={**tags, name: operator})
    statistics.incr("ti_successes", tags=dict(tags))
    if RELEASE < (3, 3):
        statistics.incr(f"operator_successes_{operator}", tags=dict(tags))
    if seconds is not None:
        statistics.timing("task.duration", seconds * 1000, tags=dict(tags))


def map_index_of(ti: Any) -> int:
    """Return the index of a mapped task; -1 if it is not mapped."""
    return -1 if ti.map_index is None else int(ti.map_index)


def identity_of(ti: Any) -> list[str | int]:
    """Return the identity of a task instance: unique, and the same for all its tries.

    Since Airflow 3.4 a task of a loop runs several times in a DAG run; its region and
    its index there distinguish the iterations, as in Airflow's own task state store.
    """
    identity = [ti.dag_id, ti.run_id, ti.task_id, map_index_of(ti)]
    region = getattr(ti, "region_id", None)
    if region is not None and region.int:
        identity += [str(region), ti.region_index]
    return identity


async def _to_its_end(answer: Coroutine[Any, Any, T]) -> T:
    """Await something that continues if the awaiting task is cancelled."""
    task = asyncio.ensure_future(answer)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return await asyncio.shield(task)
