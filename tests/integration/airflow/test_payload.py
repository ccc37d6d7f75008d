"""A payload becomes plain JSON, whatever Airflow or a template put into it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, overload

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.sdk.definitions.xcom_arg import _ConcatResult, _MapResult, _ZipResult
from hypothesis import given
from hypothesis import strategies as st

from runqy_provider.client.models import plain_payload
from runqy_provider.errors import InvalidPayload
from runqy_provider.operators.runqy import RunqyOperator
from tests.support.harness import Run, run_of

WHEN = pendulum.datetime(2026, 1, 2, 3, 4, 5, tz="UTC")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
RESERVED = {"task_id", "webhook_url", "delivery"}


class Lazy(Sequence[Any]):
    """A sequence that is not a list, like the XComs of a mapped task."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)


@given(st.dictionaries(st.text().filter(lambda name: name not in RESERVED), JSON))
def test_payload_json_object_is_unchanged(payload: dict[str, Any]) -> None:
    assert plain_payload(payload, "q") == payload


@given(st.dictionaries(st.text().filter(lambda name: name not in RESERVED), JSON))
def test_payload_json_text_is_parsed(payload: dict[str, Any]) -> None:
    assert plain_payload(json.dumps(payload), "q") == payload


@given(st.lists(st.sampled_from(["key", "list", "lazy"]), max_size=6))
def test_payload_not_json_is_refused_with_its_path(steps: list[str]) -> None:
    bad: Any = object()
    path = ""
    for step in steps:
        if step == "key":
            bad, path = {"k": bad}, f"['k']{path}"
        else:
            bad = [0, bad] if step == "list" else Lazy([0, bad])
            path = f"[1]{path}"

    with pytest.raises(InvalidPayload) as caught:
        plain_payload({"top": bad}, "q")
    assert f"an object at payload['top']{path}" in str(caught.value).replace(
        "a object", "an object"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Lazy([1, {"a": Lazy([2])}]), [1, {"a": [2]}]),
        (_MapResult(Lazy([1, 2]), [lambda n: n * 10]), [10, 20]),
        (_ZipResult([Lazy([1, 2]), Lazy(["a", "b"])]), [[1, "a"], [2, "b"]]),
        (_ConcatResult([Lazy([1]), Lazy([2])]), [1, 2]),
        ((1, (2,)), [1, [2]]),
        (WHEN, "2026-01-02T03:04:05Z"),
        (Decimal("1.50"), "1.50"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("a/b"), "a/b"),
    ],
)
def test_payload_airflow_types_become_json(value: Any, expected: Any) -> None:
    assert plain_payload({"x": value}, "q") == {"x": expected}


@pytest.mark.parametrize("value", [b"x", {1}, float("nan"), {1: 2}])
def test_payload_ambiguous_value_is_refused(value: Any) -> None:
    with pytest.raises(InvalidPayload):
        plain_payload({"x": value}, "q")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_payload_float_without_json_form_is_refused_with_advice(value: float) -> None:
    with pytest.raises(InvalidPayload, match=rf"{value} at payload\['x'\]\[0\].*null"):
        plain_payload({"x": [value]}, "q")


def test_payload_containing_itself_is_refused() -> None:
    payload: dict[str, Any] = {}
    payload["self"] = payload
    with pytest.raises(InvalidPayload, match="contains itself"):
        plain_payload(payload, "q")


@pytest.mark.parametrize("payload", ["{{ ds }}", "[1]", "5", "not json", 5, [1], None])
def test_payload_without_object_is_refused_with_advice(payload: Any) -> None:
    with pytest.raises(InvalidPayload, match="payload="):
        plain_payload(payload, "q")


@pytest.mark.usefixtures("connect", "no_settling")
def test_payload_template_with_tojson_is_accepted() -> None:
    run = run_of("{{ {'value': 7} | tojson }}").execute()
    if run.state == "deferred":
        run.resume(run.fire())

    assert run.value == 7


@pytest.mark.usefixtures("connect", "no_settling")
def test_payload_native_template_time_becomes_text() -> None:
    with DAG("native", render_template_as_native_obj=True, schedule=None):
        task = RunqyOperator(
            task_id="t",
            runqy_queue="helper",
            payload={"value": "{{ dag_run.start_date }}"},
        )
    run = Run(task).execute()
    if run.state == "deferred":
        run.resume(run.fire())

    assert str(run.value).startswith(f"{run.started_at:%Y-%m-%dT%H:%M:%S}")
