"""Which tasks the triggerer may end, and what a worker does for all others."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, Asset, BaseOperatorLink
from redis import Redis

from runqy_provider.airflow_compat import get_listener_manager
from runqy_provider.errors import Misconfigured
from runqy_provider.links import ResultLink
from runqy_provider.operators.runqy import RunqyOperator
from runqy_provider.sensors.runqy import RunqySensor
from tests.support.harness import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.stack import Gate, Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling")

seen: list[str] = []


class WithPostExecute(RunqyOperator):
    def post_execute(self, context: Any, result: Any = None) -> None:
        seen.append("post_execute")


class WithExecuteComplete(RunqyOperator):
    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        return {"own": super().execute_complete(context, event)}


class OwnLink(BaseOperatorLink):
    name = "Own"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        seen.append("link")
        return "http://own"


class WithLink(RunqyOperator):
    operator_extra_links: Any = (ResultLink(), OwnLink())


class WithRenderedFields(RunqyOperator):
    overwrite_rtif_after_execution = True


def _on_success(_context: Any) -> None:
    seen.append("on_success_callback")


def _post_execute(_context: Any, _result: Any) -> None:
    seen.append("post_execute=")


Arguments = dict[str, Any]

LOSSES: dict[str, tuple[type[RunqyOperator], Arguments, dict[str, str]]] = {
    "asset events of its outlets": (RunqyOperator, {"outlets": [Asset("a")]}, {}),
    "on_success_callback": (RunqyOperator, {"on_success_callback": _on_success}, {}),
    "post_execute": (WithPostExecute, {}, {}),
    "execute_complete of WithExecuteComplete": (WithExecuteComplete, {}, {}),
    "multiple_outputs": (RunqyOperator, {"multiple_outputs": True}, {}),
    "map_index_template": (RunqyOperator, {"map_index_template": "{{ 1 }}"}, {}),
    "rendered template fields": (WithRenderedFields, {}, {}),
    "the links Own": (WithLink, {}, {}),
    "clear_on_success": (
        RunqyOperator,
        {},
        {"AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS": "True"},
    ),
    "trace span": (RunqyOperator, {}, {"AIRFLOW__TRACES__OTEL_ON": "True"}),
}


def _run(kind: type[RunqyOperator], gate: Gate, **arguments: Any) -> Run:
    with DAG("d", schedule=None):
        task = kind(
            task_id="t",
            runqy_queue="helper",
            payload={"value": {"a": 1}, **gate.closed},
            defer_after=timedelta(0),
            **arguments,
        )
    return Run(task)


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


@pytest.fixture
def listener() -> Iterator[None]:
    """A listener for task success, like that of OpenLineage."""
    from tests.support.versions import hookimpl

    class Listener:
        @hookimpl  # type: ignore[untyped-decorator] # Airflow's
        def on_task_instance_success(self, task_instance: Any) -> None:
            seen.append("listener")

    manager, listener = get_listener_manager(), Listener()
    manager.pm.register(listener, name="lineage")
    yield
    manager.pm.unregister(listener)


@pytest.mark.parametrize("wanted", [None, True])
def test_task_end_nothing_lost_ends_in_triggerer(
    gate: Gate, *, wanted: bool | None
) -> None:
    run = _run(RunqyOperator, gate, end_from_trigger=wanted).execute()

    assert run.trigger.task_end is not None
    assert run.trigger.task_end["operator"] == "RunqyOperator"
    assert run.trigger.task_end["tags"] == {"dag_id": "d", "task_id": "t"}


def test_task_end_end_from_trigger_false_ends_on_worker(gate: Gate) -> None:
    run = _run(RunqyOperator, gate, end_from_trigger=False).execute()

    assert run.trigger.task_end is None


@pytest.mark.parametrize("lost", LOSSES)
def test_task_end_something_lost_ends_on_worker(
    lost: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, arguments, environment = LOSSES[lost]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run = _run(kind, gate, **arguments).execute()

    assert run.state == "deferred"
    assert run.trigger.task_end is None


@pytest.mark.parametrize("lost", LOSSES)
def test_task_end_forced_with_loss_fails_before_enqueue(
    lost: str, gate: Gate, monkeypatch: pytest.MonkeyPatch, stack: Stack
) -> None:
    kind, arguments, environment = LOSSES[lost]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        before = set(redis.scan_iter("asynq:t:*"))
        run = _run(kind, gate, end_from_trigger=True, **arguments).execute()
        after = set(redis.scan_iter("asynq:t:*"))

    assert run.state == "failed"
    assert isinstance(run.error, Misconfigured)
    assert lost in str(run.error)
    assert "Nothing was enqueued" in str(run.error)
    assert after == before


@pytest.mark.usefixtures("listener")
def test_task_end_success_listener_ends_on_worker(gate: Gate) -> None:
    assert _run(RunqyOperator, gate).execute().trigger.task_end is None
    forced = _run(RunqyOperator, gate, end_from_trigger=True).execute()
    assert "calls of listeners (lineage)" in str(forced.error)


def _resumed(gate: Gate, kind: type[RunqyOperator], **arguments: Any) -> Run:
    """Run a task to its end: its trigger, and then the worker."""
    run = _run(kind, gate, **arguments).execute()
    gate.open()
    return run.resume(run.fire())


@pytest.mark.usefixtures("listener")
def test_worker_end_listener_is_called(gate: Gate) -> None:
    _resumed(gate, RunqyOperator)
    assert "listener" in seen


def test_worker_end_success_callback_is_called(gate: Gate) -> None:
    _resumed(gate, RunqyOperator, on_success_callback=_on_success)
    assert "on_success_callback" in seen


def test_worker_end_outlet_gets_asset_event(gate: Gate) -> None:
    run = _resumed(gate, RunqyOperator, outlets=[Asset("a")])
    assert [outlet.name for outlet in run.last.msg.task_outlets] == ["a"]


@pytest.mark.parametrize(
    ("kind", "arguments", "called"),
    [
        (WithPostExecute, {}, "post_execute"),
        (RunqyOperator, {"post_execute": _post_execute}, "post_execute="),
    ],
)
def test_worker_end_post_execute_is_called(
    gate: Gate, kind: type[RunqyOperator], arguments: Arguments, called: str
) -> None:
    _resumed(gate, kind, **arguments)
    assert called in seen


def test_worker_end_own_execute_complete_returns_result(gate: Gate) -> None:
    assert _resumed(gate, WithExecuteComplete).value == {"own": {"a": 1}}


def test_worker_end_multiple_outputs_become_xcoms(gate: Gate) -> None:
    assert _resumed(gate, RunqyOperator, multiple_outputs=True).xcoms["a"] == 1


def test_worker_end_map_index_template_is_rendered(gate: Gate) -> None:
    run = _resumed(gate, RunqyOperator, map_index_template="n{{ 1 }}")
    assert run.last.msg.rendered_map_index == "n1"


def test_worker_end_own_link_is_made(gate: Gate) -> None:
    _resumed(gate, WithLink)
    assert "link" in seen


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"do_xcom_push": False}, {"pushes_result": False}),
        ({}, {"pushes_result": True, "pushes_receipt": True}),
    ],
)
def test_task_end_do_xcom_push_is_passed_to_trigger(
    gate: Gate, arguments: Arguments, expected: dict[str, bool]
) -> None:
    end = _run(RunqyOperator, gate, **arguments).execute().trigger.task_end
    assert end is not None
    assert expected.items() <= end.items()


def test_task_end_mapped_task_downstream_needs_length(gate: Gate) -> None:
    with DAG("d", schedule=None):
        task = RunqyOperator(
            task_id="t",
            runqy_queue="helper",
            payload=gate.closed,
            defer_after=timedelta(0),
        )
        RunqyOperator.partial(task_id="u", runqy_queue="helper").expand(
            payload=task.output
        )
    end = Run(task).execute().trigger.task_end
    assert end is not None
    assert end["is_expanded_over"]
    mapped = Run(task, map_index=3).execute().trigger.task_end
    assert mapped is not None
    assert not mapped["is_expanded_over"]


@pytest.mark.parametrize(("wanted", "ends"), [(None, True), (False, False)])
def test_task_end_sensor_ends_in_triggerer(*, wanted: bool | None, ends: bool) -> None:
    with DAG("d", schedule=None):
        task = RunqySensor(
            task_id="t",
            delivery_id="never",
            sink="webhook",
            end_from_trigger=wanted,
        )
    end = Run(task).execute().trigger.task_end

    assert (end is not None) is ends
    assert end is None or not end["pushes_receipt"]


def test_task_end_forced_sensor_with_loss_fails() -> None:
    with DAG("d", schedule=None):
        task = RunqySensor(
            task_id="t",
            delivery_id="never",
            sink="webhook",
            end_from_trigger=True,
            outlets=[Asset("a")],
        )
    assert "asset events" in str(Run(task).execute().error)


def test_clear_after_task_end_enqueues_new_job(
    gate: Gate, connect: Callable[..., Any]
) -> None:
    """Airflow leaves max_tries of a cleared task as it is if retries were lowered."""
    first = _run(RunqyOperator, gate, retries=1)
    first.max_tries = 1
    first.execute()
    gate.open()
    assert first.fire()["status"] == "completed"
    second = first.retried()
    second.task = _run(RunqyOperator, gate, retries=0).task
    second.execute()

    assert second.xcoms["runqy_job"]["job_id"] != first.xcoms["runqy_job"]["job_id"]
