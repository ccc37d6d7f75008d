"""XCom returns exactly the value that a job delivered, or a reference to it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import sqlalchemy
from airflow.models.xcom import XComModel
from airflow.sdk.execution_time.comms import SetXCom, _RequestFrame
from hypothesis import example, given, settings
from hypothesis import strategies as st

from devtools.servers.postgres import running_postgres
from runqy_provider.airflow_compat import deserialize, serialize
from runqy_provider.errors import Misconfigured, TooLarge
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.models import is_reference
from runqy_provider.xcom_value import is_kept_by_xcom
from tests.support.harness import outcome_of, run_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection

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
    "large float": {"seed": [1e22]},
    "negative zero": [-0.0],
}

#: A table with a column of the type that Airflow stores XComs in.
STORED = sqlalchemy.Table(
    "stored",
    sqlalchemy.MetaData(),
    sqlalchemy.Column("value", XComModel.__table__.c.value.type),
)

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


@pytest.fixture(scope="module")
def database() -> Iterator[Connection]:
    """A PostgreSQL with the table STORED; each value is rolled back."""
    with running_postgres() as postgres:
        engine = sqlalchemy.create_engine(postgres.url)
        STORED.metadata.create_all(engine)
        with engine.connect() as connection:
            yield connection
        engine.dispose()


def _through_xcom(value: Any, database: Connection) -> Any:
    """Serialize, store and deserialize a value as a worker and the API server do."""
    message = SetXCom(
        key="k", value=serialize(value), dag_id="d", run_id="r", task_id="t"
    )
    _RequestFrame(id=1, body=message.model_dump()).as_bytes()
    # Not ``database.rollback()``, which the SQLAlchemy of an older Airflow lacks.
    transaction = database.begin()
    try:
        database.execute(STORED.insert().values(value=message.value))
        stored = database.execute(STORED.select()).scalar_one()
    finally:
        transaction.rollback()
    return deserialize(stored)


def _text(value: Any) -> str:
    """Return JSON text: Python treats True, 1 and 1.0 as equal, and 0.0 and -0.0."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("name", CHANGED_OR_REFUSED)
def test_xcom_value_changed_or_refused_by_airflow_is_not_kept(name: str) -> None:
    assert not is_kept_by_xcom(CHANGED_OR_REFUSED[name])


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_xcom_value_kept_is_unchanged(database: Connection, value: Any) -> None:
    if is_kept_by_xcom(value):
        assert _text(_through_xcom(value, database)) == _text(value)


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=12))
@settings(max_examples=200, deadline=None)
def test_xcom_value_without_objects_is_kept_if_database_keeps_it(
    database: Connection, value: Any
) -> None:
    try:
        is_unchanged = _text(_through_xcom(value, database)) == _text(value)
    except (OverflowError, sqlalchemy.exc.SQLAlchemyError):
        is_unchanged = False

    assert is_kept_by_xcom(value) is is_unchanged


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=200, deadline=None)
@example(1e16)
@example(math.nextafter(1e16, 0))
@example(-1e16)
@example(-0.0)
@example(5e-324)
@example(1.7976931348623157e308)
def test_xcom_value_float_is_kept_if_database_keeps_it(
    database: Connection, value: float
) -> None:
    stored = _through_xcom([value], database)

    assert is_kept_by_xcom([value]) is (_text(stored) == _text([value]))


@pytest.mark.usefixtures("connect", "no_settling")
@pytest.mark.parametrize(
    "name",
    [
        "old dict",
        "connection in a list",
        "large number",
        "large float",
        "negative zero",
    ],
)
def test_xcom_value_changed_by_xcom_is_reference(name: str) -> None:
    value = CHANGED_OR_REFUSED[name]
    outcome = outcome_of(run_of({"json": json.dumps(value)}))

    assert is_reference(outcome)
    assert _text(RunqyResultHook().read(outcome).json()) == _text(value)


@pytest.mark.usefixtures("connect", "no_settling")
def test_xcom_value_metadata_changed_by_database_is_left_out() -> None:
    run = run_of({}, "idle", returns="reference").execute()
    with RunqyHook() as hook:
        payload = hook.get_job(run.xcoms["runqy_job"]["job_id"]).payload
    delivery = {"task_id": payload["task_id"], "result": 1, "metadata": {"x": 1e22}}
    httpx.post(payload["webhook_url"], json=delivery).raise_for_status()

    assert run.resume(run.fire()).value["metadata"] is None


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
