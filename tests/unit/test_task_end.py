"""Which tasks the triggerer may end: those that lose nothing by it."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, Asset, BaseOperatorLink

from runqy_provider.airflow_compat import get_listener_manager
from runqy_provider.errors import Misconfigured
from runqy_provider.jobs.task_end import TaskEnd, task_end_of
from runqy_provider.links import ResultLink
from runqy_provider.operators.runqy import RunqyOperator
from tests.support.versions import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

Arguments = dict[str, Any]


class WithPostExecute(RunqyOperator):
    def post_execute(self, context: Any, result: Any = None) -> None:
        """Do nothing."""


class WithExecuteComplete(RunqyOperator):
    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        return {"own": super().execute_complete(context, event)}


class OwnLink(BaseOperatorLink):
    name = "Own"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return "http://own"


class WithLink(RunqyOperator):
    operator_extra_links: Any = (ResultLink(), OwnLink())


class WithRenderedFields(RunqyOperator):
    overwrite_rtif_after_execution = True


def nothing(*_: Any) -> None:
    """Do nothing."""


#: What would be lost, as messages name it, by what causes it.
LOSSES: dict[str, tuple[type[RunqyOperator], Arguments, dict[str, str]]] = {
    "asset events of its outlets": (RunqyOperator, {"outlets": [Asset("a")]}, {}),
    "on_success_callback": (RunqyOperator, {"on_success_callback": nothing}, {}),
    "post_execute": (WithPostExecute, {}, {}),
    "post_execute ": (RunqyOperator, {"post_execute": nothing}, {}),
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


def end_of(
    kind: type[RunqyOperator] = RunqyOperator,
    *,
    wanted: bool | None = None,
    map_index: int = -1,
    is_expanded: bool = False,
    **arguments: Any,
) -> TaskEnd | None:
    """Return how the triggerer may end a task with these arguments."""
    with DAG("d", schedule=None):
        task = kind(task_id="t", runqy_queue="helper", payload={}, **arguments)
        if is_expanded:
            RunqyOperator.partial(task_id="u", runqy_queue="helper").expand(
                payload=task.output
            )
    ti = SimpleNamespace(
        dag_id="d",
        run_id="r",
        task_id="t",
        map_index=map_index,
        start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
        stats_tags={"dag_id": "d", "task_id": "t"},
    )
    context: Any = {"ti": ti}
    return task_end_of(
        task,
        context,
        wanted=wanted,
        own=RunqyOperator,
        pushes_receipt=True,
        returns="auto",
    )


@pytest.fixture
def listener() -> Iterator[None]:
    """A listener for task success, like that of OpenLineage."""

    class Listener:
        @hookimpl  # type: ignore[untyped-decorator] # Airflow's
        def on_task_instance_success(self, task_instance: Any) -> None:
            """Do nothing."""

    manager, listener = get_listener_manager(), Listener()
    manager.pm.register(listener, name="lineage")
    yield
    manager.pm.unregister(listener)


@pytest.fixture(params=LOSSES)
def lost(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Something that would be lost; it is in the configuration by now."""
    for name, value in LOSSES[request.param][2].items():
        monkeypatch.setenv(name, value)
    return str(request.param)


def test_task_end_something_lost_ends_on_worker(lost: str) -> None:
    kind, arguments, _ = LOSSES[lost]

    assert end_of(kind, **arguments) is None


def test_task_end_forced_with_loss_is_refused(lost: str) -> None:
    kind, arguments, _ = LOSSES[lost]

    with pytest.raises(Misconfigured, match=lost.strip()):
        end_of(kind, wanted=True, **arguments)


@pytest.mark.usefixtures("listener")
def test_task_end_success_listener_ends_on_worker() -> None:
    assert end_of() is None
    with pytest.raises(Misconfigured, match="lineage"):
        end_of(wanted=True)


@pytest.mark.parametrize(
    ("wanted", "ends"), [(None, True), (True, True), (False, False)]
)
def test_task_end_nothing_lost_ends_in_triggerer_if_wanted(
    *, wanted: bool | None, ends: bool
) -> None:
    assert (end_of(wanted=wanted) is not None) is ends


def test_task_end_is_of_the_task() -> None:
    end = end_of()

    assert end is not None
    assert (end.operator, end.tags) == (
        "RunqyOperator",
        {"dag_id": "d", "task_id": "t"},
    )
    assert (end.pushes_result, end.pushes_receipt) == (True, True)


def test_task_end_do_xcom_push_false_pushes_no_result() -> None:
    end = end_of(do_xcom_push=False)

    assert end is not None
    assert not end.pushes_result


@pytest.mark.parametrize(("map_index", "needs_length"), [(-1, True), (3, False)])
def test_task_end_mapped_task_downstream_needs_length(
    map_index: int, *, needs_length: bool
) -> None:
    end = end_of(is_expanded=True, map_index=map_index)

    assert end is not None
    assert end.is_expanded_over is needs_length
