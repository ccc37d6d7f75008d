"""What a worker does for a task that the triggerer must not end."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, Asset, BaseOperatorLink
from redis import Redis

from runqy_provider.airflow_compat import RELEASE, get_listener_manager
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


class WithExecuteComplete(RunqyOperator):
    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        return {"own": super().execute_complete(context, event)}


class OwnLink(BaseOperatorLink):
    name = "Own"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        seen.append("link")
        return "http://own"


class WithPostExecute(RunqyOperator):
    operator_extra_links: Any = (ResultLink(), OwnLink())

    def post_execute(self, context: Any, result: Any = None) -> None:
        seen.append("post_execute")


def _on_success(_context: Any) -> None:
    seen.append("on_success_callback")


def _post_execute(_context: Any, _result: Any) -> None:
    seen.append("post_execute=")


Arguments = dict[str, Any]


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


def test_task_end_nothing_lost_ends_in_triggerer(gate: Gate) -> None:
    run = _run(RunqyOperator, gate).execute()

    assert run.trigger.task_end is not None
    assert run.trigger.task_end["operator"] == "RunqyOperator"
    run_type = {} if RELEASE < (3, 4) else {"run_type": "manual"}
    assert run.trigger.task_end["tags"] == {"dag_id": "d", "task_id": "t", **run_type}


def test_task_end_forced_with_loss_fails_before_enqueue(
    gate: Gate, stack: Stack
) -> None:
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        before = set(redis.scan_iter("asynq:t:*"))
        run = _run(RunqyOperator, gate, end_from_trigger=True, outlets=[Asset("a")])
        run.execute()
        after = set(redis.scan_iter("asynq:t:*"))

    assert isinstance(run.error, Misconfigured)
    assert after == before


def _resumed(gate: Gate, kind: type[RunqyOperator], **arguments: Any) -> Run:
    """Run a task to its end: its trigger, and then the worker."""
    run = _run(kind, gate, **arguments).execute()
    gate.open()
    return run.resume(run.fire())


@pytest.mark.usefixtures("listener")
def test_worker_end_loses_nothing(gate: Gate) -> None:
    run = _resumed(
        gate,
        WithPostExecute,
        on_success_callback=_on_success,
        outlets=[Asset("a")],
        multiple_outputs=True,
        map_index_template="n{{ 1 }}",
    )

    assert set(seen) == {"listener", "on_success_callback", "post_execute", "link"}
    assert [outlet.name for outlet in run.last.msg.task_outlets] == ["a"]
    assert run.xcoms["a"] == 1
    assert run.last.msg.rendered_map_index == "n1"


def test_worker_end_post_execute_argument_is_called(gate: Gate) -> None:
    _resumed(gate, RunqyOperator, post_execute=_post_execute)

    assert seen == ["post_execute="]


def test_worker_end_own_execute_complete_returns_result(gate: Gate) -> None:
    assert _resumed(gate, WithExecuteComplete).value == {"own": {"a": 1}}


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
