"""XCom returns exactly the value that a job delivered, or a reference to it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk.execution_time.comms import SetXCom, _RequestFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from runqy_provider.airflow_compat import deserialize, serialize
from runqy_provider.errors import Misconfigured, TooLarge
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.models import is_reference
from runqy_provider.xcom_value import is_kept_by_xcom
from tests.support.harness import outcome_of, run_of

CONNECTION = {"conn_id": "x", "conn_type": "http", "host": "h"}
REFERENCE = {
    "uri": "file:///etc/hostname",
    "content_type": "text/plain",
    "size": 1,
    "delivery_id": "x",
    "metadata": None,
}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


CHANGED_OR_REFUSED = {
    "old dict": {"__type": "dict", "__var": REFERENCE},
    "connection in a list": [
        {"__type": "airflow.sdk.definitions.connection.Connection", "__var": CONNECTION}
    ],
    "connection, new style": {
        "__classname__": "airflow.sdk.definitions.connection.Connection",
        "__version__": 1,
        "__data__": CONNECTION,
    },
    "schema id": {"nodes": [{"__id__": 7}]},
    "class name": {"nodes": [{"__classname__": "x"}]},
    "large number": {"seed": 2**70},
    "deep": nested(300),
}

#: Keys with a meaning for one of Airflow's serializers, and ordinary ones.
NAMES = st.sampled_from(
    ["__type", "__var", "__classname__", "__version__", "__data__", "__id__", "a", "b"]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(
        ["dict", "set", "tuple", "datetime", "airflow.sdk.definitions.asset.Asset"]
    )
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)
    ),
    max_leaves=12,
)


def _through_xcom(value: Any) -> Any:
    """Serialize and deserialize a value as a worker and XCom do."""
    message = SetXCom(
        key="k", value=serialize(value), dag_id="d", run_id="r", task_id="t"
    )
    _RequestFrame(id=1, body=message.model_dump()).as_bytes()
    return deserialize(json.loads(json.dumps(message.value)))


@pytest.mark.parametrize("name", CHANGED_OR_REFUSED)
def test_xcom_value_changed_or_refused_by_airflow_is_not_kept(name: str) -> None:
    assert not is_kept_by_xcom(CHANGED_OR_REFUSED[name])


@given(VALUES)
@settings(max_examples=500, deadline=None)
def test_xcom_value_kept_is_unchanged(value: Any) -> None:
    if not is_kept_by_xcom(value):
        return
    out = _through_xcom(value)
    # Python treats True as equal to 1; JSON text does not.
    assert json.dumps(out, sort_keys=True) == json.dumps(value, sort_keys=True)


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=12))
def test_xcom_value_without_objects_is_kept_if_numbers_fit(
    value: Any,
) -> None:
    numbers = [int(n) for n in _numbers(value)]
    fits = all(-(2**63) <= n < 2**64 for n in numbers)
    assert is_kept_by_xcom(value) is (fits and "\x00" not in str(_texts(value)))


def _numbers(value: Any) -> list[int]:
    if isinstance(value, list):
        return [n for one in value for n in _numbers(one)]
    return [value] if type(value) is int else []


def _texts(value: Any) -> str:
    if isinstance(value, list):
        return "".join(_texts(one) for one in value)
    return value if isinstance(value, str) else ""


@pytest.mark.usefixtures("connect", "no_settling")
@pytest.mark.parametrize("name", ["old dict", "connection in a list", "large number"])
@pytest.mark.parametrize("sink", ["webhook", "s3://results"])
def test_xcom_value_changed_by_xcom_is_reference(name: str, sink: str) -> None:
    value = CHANGED_OR_REFUSED[name]
    outcome = outcome_of(run_of({"json": json.dumps(value)}, sink=sink))

    assert is_reference(outcome)
    assert RunqyResultHook().read(outcome).json() == value


@pytest.mark.usefixtures("connect", "no_settling")
@pytest.mark.parametrize("name", ["schema id", "class name", "deep"])
def test_xcom_value_refused_by_xcom_is_reference(name: str) -> None:
    text = json.dumps(CHANGED_OR_REFUSED[name])
    outcome = outcome_of(run_of({"json": text}))

    assert is_reference(outcome)


@pytest.mark.usefixtures("connect", "no_settling")
def test_returns_reference_small_value_is_reference() -> None:
    outcome = outcome_of(run_of({"value": [1]}, returns="reference"))

    assert is_reference(outcome)
    assert RunqyResultHook().read(outcome).json() == [1]


@pytest.mark.usefixtures("connect", "no_settling")
@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ({"value": "x" * 100_000}, "100,002 bytes"),
        ({"bytes": 10}, "is image/png, not JSON"),
        ({"json": str(2**70)}, "cannot give back unchanged"),
    ],
)
def test_returns_value_unfit_for_xcom_fails_with_advice(
    payload: dict[str, Any], why: str
) -> None:
    run = run_of(payload, returns="value")
    with pytest.raises(TooLarge, match="returns='auto'") as caught:
        outcome_of(run)
    assert why in str(caught.value)

    again = run.retried().execute()
    assert isinstance(again.error, TooLarge)
    assert again.xcoms["runqy_job"] == run.xcoms["runqy_job"], "the job ran once"


@pytest.mark.usefixtures("connect", "no_settling")
def test_returns_unknown_option_is_refused_before_enqueue() -> None:
    run = run_of({"value": 1}, returns="values").execute()

    assert isinstance(run.error, Misconfigured)
    assert "runqy_job" not in run.xcoms


@pytest.mark.usefixtures("connect", "no_settling")
def test_xcom_push_failed_retry_takes_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.sdk.execution_time import task_runner

    run = run_of({"value": 5}).execute()
    event = run.fire() if run.state == "deferred" else None

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("the API server is unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(task_runner, "_push_xcom_if_needed", refuse)
        failed = run.resume(event) if event else run
    again = run.retried()
    assert outcome_of(again) == 5
    assert failed is run
    assert again.xcoms["runqy_job"] == run.xcoms["runqy_job"]
