"""What differs between versions of Airflow behaves the same on all of them."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from runqy_provider import airflow_compat
from runqy_provider.airflow_compat import (
    AirflowNotFoundException,
    BaseHook,
    count_success,
    get_connection,
    in_thread,
    metrics,
    readable_connections,
    resolve,
)

TAGS = {"dag_id": "d", "task_id": "t"}


def test_names_all_exist_in_this_airflow() -> None:
    for name in airflow_compat.__all__:
        assert getattr(airflow_compat, name) is not None


def test_name_that_is_unknown_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchName"):
        _ = airflow_compat.NoSuchName


def test_resolve_takes_the_first_path_that_exists() -> None:
    assert resolve("no.such.module:it", "os:no_such_name", "os:sep") == "/"
    with pytest.raises(ImportError, match=r"none of no\.such\.module"):
        resolve("no.such.module")


@pytest.fixture(params=[True, False], ids=["sound pipe", "pipe before 3.2.2"])
def has_sound_pipe(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> bool:
    monkeypatch.setattr(airflow_compat, "SUPERVISOR_PIPE_IS_SAFE", request.param)
    return bool(request.param)


@pytest.mark.usefixtures("has_sound_pipe")
async def test_in_thread_keeps_context_variables() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("kept")

    def read(suffix: str) -> tuple[str, bool]:
        is_main = threading.current_thread() is threading.main_thread()
        return variable.get() + suffix, is_main

    assert await in_thread(read, "!") == ("kept!", False)


@pytest.mark.usefixtures("has_sound_pipe")
async def test_in_thread_error_is_raised() -> None:
    with pytest.raises(ValueError, match="no"):
        await in_thread(int, "no")


async def test_in_thread_cancelled_before_3_2_2_function_goes_on_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(airflow_compat, "SUPERVISOR_PIPE_IS_SAFE", False)
    began, go_on, ended = threading.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def question() -> None:
        began.set()
        assert go_on.wait(10)
        loop.call_soon_threadsafe(ended.set)

    task = asyncio.create_task(in_thread(question))
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await asyncio.wait_for(ended.wait(), 10)


def test_get_connection_without_supervisor_says_that_it_is_not_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Airflow 3.1.0 raises ImportError in an API server."""
    name = "airflow.sdk.execution_time.task_runner"

    def refuse(_conn_id: str) -> Any:
        raise ImportError("cannot import name 'SUPERVISOR_COMMS'", name=name)

    monkeypatch.setattr(BaseHook, "get_connection", refuse)
    with pytest.raises(AirflowNotFoundException, match="missing"):
        get_connection("missing")


@pytest.mark.skipif(airflow_compat.RELEASE < (3, 2), reason="There is one copy only")
@pytest.mark.parametrize(
    ("loaded", "part"),
    [
        (["airflow.sdk.execution_time.task_runner"], ".sdk."),
        (
            [
                "airflow.sdk.execution_time.task_runner",
                "airflow.jobs.triggerer_job_runner",
            ],
            "airflow._shared.",
        ),
        ([], "airflow._shared."),
    ],
    ids=["task", "triggerer", "API server"],
)
def test_metrics_are_those_that_airflow_has_set_up_in_this_process(
    loaded: list[str], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "airflow.sdk.execution_time.task_runner",
        "airflow.jobs.triggerer_job_runner",
    ):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in loaded:
        module = ModuleType(name)
        module.SUPERVISOR_COMMS = object()  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)

    found: Any = metrics()
    where = found.__module__ if isinstance(found, type) else found.incr.__module__
    assert part in where


@pytest.mark.parametrize(
    ("release", "names"),
    [
        ((3, 0, 6), []),
        (
            (3, 2, 1),
            [
                "operator_successes",
                "ti_successes",
                "operator_successes_RunqyOperator",
                "task.duration",
            ],
        ),
        ((3, 3, 2), ["operator_successes", "ti_successes", "task.duration"]),
    ],
)
def test_count_success_sends_what_a_worker_would(
    release: tuple[int, ...], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def record(name: str, *_: Any, **__: Any) -> None:
        sent.append(name)

    monkeypatch.setattr(airflow_compat, "RELEASE", release)
    backend = SimpleNamespace(incr=record, timing=record)
    monkeypatch.setattr(airflow_compat, "metrics", lambda: backend)
    count_success("RunqyOperator", TAGS, 1.5)

    assert sent == names


def test_readable_connections_without_filter_asks_for_each() -> None:
    """As the auth manager of Airflow 3.0."""

    class Manager:
        def is_authorized_connection(self, *, method: str, user: str, details: Any):  # type: ignore[no-untyped-def] # noqa: ANN202 - Airflow's
            return (method, user) == ("GET", "anna") and details.conn_id == "ours"

    found = readable_connections(Manager(), {"ours", "other"}, "anna", None)
    assert found == {"ours"}
