"""``@task.runqy``: the function returns the payload, the call gives the result."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, task

from runqy_provider.decorators.runqy import RunqyDecoratedOperator, runqy_task
from runqy_provider.errors import InvalidPayload
from runqy_provider.hooks.runqy import RunqyHook
from tests.support.harness import Run, outcome_of, started

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = pytest.mark.usefixtures("connect", "no_settling")

ARGUMENTS = {"runqy_queue": "helper", "defer_after": timedelta(0)}


def run_decorated(
    function: Callable[..., Mapping[str, Any] | None],
    *args: Any,
    arguments: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Run:
    """Return a run of a task that is made of a function by the decorator."""
    with DAG("d", schedule=None):
        decorate = getattr(task, "runqy")  # noqa: B009 - as Airflow finds it, by its name
        output = decorate(**{**ARGUMENTS, **(arguments or {})})(function)(
            *args, **kwargs
        )
    return Run(output.operator)


def test_task_decorator_returned_payload_gives_result_of_job() -> None:
    def double(value: int) -> dict[str, Any]:
        return {"value": 2 * value}

    run = run_decorated(double, 21)
    assert isinstance(run.task, RunqyDecoratedOperator)
    assert outcome_of(run) == 42


def test_task_decorator_returned_none_sends_arguments() -> None:
    def remember(value: int, ti: Any = None, *, size: int = 7, **more: Any) -> None:
        """Take what Airflow provides, too."""
        assert ti is not None

    queue = {"runqy_queue": "idle"}
    run = started(run_decorated(remember, 3, arguments=queue, seconds=0))
    with RunqyHook() as hook:
        payload = hook.get_job(run.xcoms["runqy_job"]["job_id"]).payload
    assert {"value": 3, "size": 7, "seconds": 0}.items() <= payload.items()
    assert "ti" not in payload


def test_task_decorator_arguments_are_rendered_but_payload_is_not() -> None:
    def show(text: str) -> dict[str, Any]:
        return {"value": [text, "{{ run_id }}"]}

    run = run_decorated(show, "{{ dag.dag_id }}")
    assert outcome_of(run) == ["d", "{{ run_id }}"]


@pytest.mark.parametrize("returned", [["not", "an", "object"], 3, {"x": object()}])
def test_task_decorator_payload_not_json_object_is_refused(returned: Any) -> None:
    def wrong() -> Any:
        return returned

    with pytest.raises(InvalidPayload):
        outcome_of(run_decorated(wrong))


def test_task_decorator_annotation_of_payload_makes_no_multiple_outputs() -> None:
    def number() -> dict[str, Any]:
        return {"value": 5}

    assert outcome_of(run_decorated(number)) == 5


def test_task_decorator_sink_in_object_store_gives_result() -> None:
    def stored() -> dict[str, Any]:
        return {"value": [1]}

    run = run_decorated(stored, arguments={"sink": "s3://results/taskflow"})
    assert outcome_of(run) == [1]


def test_task_decorator_task_is_ended_by_the_triggerer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def number() -> dict[str, Any]:
        return {"value": 5}

    run_decorated(number).execute()
    assert "A worker will end this task" not in capsys.readouterr().out


def test_task_decorator_expand_partial_override_are_airflows() -> None:
    with DAG("d", schedule=None) as dag:

        @runqy_task(runqy_queue="helper")
        def resize(scene: int, size: int) -> dict[str, Any]:
            return {"scene": scene, "size": size}

        resize.partial(size=3).expand(scene=[1, 2])
        resize.override(task_id="other", runqy_queue="idle")(1, size=2)

    other = dag.get_task("other")
    assert isinstance(other, RunqyDecoratedOperator)
    assert other.runqy_queue == "idle"
    mapped = dag.get_task("resize")
    assert mapped.is_mapped
    single = mapped.unmap({"op_kwargs": {"scene": 2, "size": 3}})
    assert isinstance(single, RunqyDecoratedOperator)
    assert single.runqy_queue == "helper"


def test_task_decorator_given_payload_is_refused() -> None:
    with pytest.raises(TypeError, match="return it from the function"):
        runqy_task(runqy_queue="helper", payload={})


def test_taskflow_example_is_parsed_with_mapped_task() -> None:
    from tests.support.stack import DAGS
    from tests.support.versions import DagBag

    [dag] = DagBag(DAGS / "runqy_taskflow.py").dags.values()
    assert dag.get_task("resize").is_mapped
