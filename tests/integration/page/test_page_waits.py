"""Waiting tasks: their rows, progress, filter and paging, also with 10,000 of them."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from sqlalchemy import event, update

from runqy_delivery import Delivery
from runqy_provider.inbox import keys
from runqy_provider.inbox.keys import Progress
from runqy_sandbox.process.net import free_port
from tests.support.waiting_tasks import RUN_ID, WaitingTasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect")

MANY = 10_000
QUEUES = ("speech.default", "images.high", "images.low")


@contextmanager
def counted_queries(engine: Engine) -> Iterator[list[str]]:
    """Collect the statements that are sent to the database."""
    statements: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", count)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", count)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long something took; nothing is asserted, as machines differ."""
    began = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - began:.2f} s")  # noqa: T201 - for pytest -s


@pytest.fixture
def progress_of(stack: Stack) -> Callable[[str, float, str], None]:
    """Store the progress of a delivery, as the receiver does."""

    def store(delivery_id: str, fraction: float, text: str) -> None:
        message = Delivery(delivery_id, "progress", fraction=fraction, text=text)
        key = keys.progress("runqy_default", delivery_id)
        with Redis.from_url(stack.sandbox.redis_url) as redis:
            redis.set(key, Progress.of(message).to_json(), ex=60)

    return store


def test_waits_row_shows_task_job_and_progress(
    get: Callable[..., Any], engine: Engine, progress_of: Callable[..., None]
) -> None:
    tasks = WaitingTasks("talks", 2)
    with tasks.inserted(engine):
        progress_of(tasks.delivery_id(1), 0.25, "minute 3 of 12")
        first, second = get("/api/waits", "vera").json()["rows"]

    assert (first["dag_id"], first["run_id"], first["task_id"], first["map_index"]) == (
        "talks",
        RUN_ID,
        "transcribe",
        0,
    )
    assert (first["runqy_queue"], first["sink"]) == ("speech.default", "webhook")
    assert first["conn_id"] == "runqy_default"
    assert first["progress"] is None
    assert second["progress"]["fraction"] == 0.25
    assert second["progress"]["text"] == "minute 3 of 12"
    assert abs(second["progress"]["at"] - time.time()) < 60
    assert first["since"] < second["since"]
    assert first["deadline"] - first["since"] == pytest.approx(24 * 3600, abs=1)


def test_waits_encrypted_arguments_are_read(
    get: Callable[..., Any], engine: Engine
) -> None:
    with WaitingTasks("encrypted", is_encrypted=True).inserted(engine):
        [row] = get("/api/waits").json()["rows"]

    assert row["delivery_id"] == "encrypted-0"


def test_waits_other_triggers_and_other_states_are_not_listed(
    get: Callable[..., Any], engine: Engine
) -> None:
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger

    tasks = WaitingTasks("mixed", 3)
    with tasks.inserted(engine):
        with engine.begin() as connection:
            connection.execute(
                update(TaskInstance)
                .where(TaskInstance.dag_id == "mixed", TaskInstance.map_index == 0)
                .values(state="running")
            )
            other = (
                TaskInstance.__table__.select()
                .with_only_columns(TaskInstance.trigger_id)
                .where(TaskInstance.dag_id == "mixed", TaskInstance.map_index == 1)
            )
            connection.execute(
                update(Trigger)
                .where(Trigger.id == connection.scalar(other))
                .values(classpath="airflow.providers.standard.triggers.X")
            )
        rows = get("/api/waits").json()["rows"]

    assert [row["map_index"] for row in rows] == [2]


def test_waits_inbox_away_still_lists_them(
    get: Callable[..., Any],
    engine: Engine,
    connect: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = {"conn_type": "redis", "host": "127.0.0.1", "port": free_port()}
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps(away))
    connect(redis_conn_id="away")
    with (
        WaitingTasks("away").inserted(engine),
        WaitingTasks("no_conn", conn_id="no_such_conn").inserted(engine),
    ):
        rows = get("/api/waits").json()["rows"]

    assert {row["dag_id"]: row["progress"] for row in rows} == {
        "away": None,
        "no_conn": None,
    }


@pytest.mark.parametrize(
    "query",
    [{"limit": 101}, {"limit": 0}, {"offset": -1}, {"order": "random"}],
    ids=str,
)
def test_waits_query_out_of_range_is_refused(
    get: Callable[..., Any], query: dict[str, Any]
) -> None:
    assert get("/api/waits", **query).status_code == 422


@pytest.mark.timeout(300)
def test_waits_ten_thousand_are_paged_filtered_and_counted(
    get: Callable[..., Any], engine: Engine
) -> None:
    tasks = WaitingTasks("many", MANY, queues=QUEUES)
    with tasks.inserted(engine):
        with counted_queries(engine) as first, timed("10,000 waits, the first time"):
            answer = get("/api/waits")
        with counted_queries(engine) as again, timed("10,000 waits, once more"):
            last = get("/api/waits", offset=9_990).json()
        page = answer.json()
        newest = get("/api/waits", order="newest", limit=1).json()["rows"]
        of_queue = get("/api/waits", queue="images.low", text="MANY-99").json()
        beyond = get("/api/waits", offset=50_000).json()
        nothing = get("/api/waits", text="no such task").json()

    # The arguments of 10,000 triggers are read in batches, and only once.
    assert len(first) < 40
    assert len(again) < 15
    assert len(answer.content) < 60_000
    assert (page["total"], page["matching"], page["offset"]) == (MANY, MANY, 0)
    assert [row["map_index"] for row in page["rows"]] == list(range(50))
    assert {one["name"]: one["waits"] for one in page["queues"]} == {
        "images.high": 3333,
        "images.low": 3333,
        "speech.default": 3334,
    }
    assert [row["map_index"] for row in last["rows"]] == list(range(9_950, 10_000))
    assert [row["map_index"] for row in newest] == [9_999]
    matching = [n for n in range(MANY) if n % 3 == 2 and f"-{n}".startswith("-99")]
    assert (of_queue["matching"], of_queue["total"]) == (len(matching), MANY)
    assert [row["map_index"] for row in of_queue["rows"]] == matching[:50]
    assert (beyond["offset"], len(beyond["rows"])) == (9_950, 50)
    assert (nothing["matching"], nothing["rows"]) == (0, [])


def test_waits_more_than_are_held_is_said(
    get: Callable[..., Any], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runqy_provider.plugins.page import waits

    monkeypatch.setattr(waits, "MOST_WAITS", 3)
    with WaitingTasks("four", 4).inserted(engine):
        cut = get("/api/waits").json()
    with WaitingTasks("three", 3).inserted(engine):
        whole = get("/api/waits").json()

    assert (cut["is_complete"], cut["total"]) == (False, 3)
    assert [row["map_index"] for row in cut["rows"]] == [0, 1, 2], "the oldest"
    assert (whole["is_complete"], whole["total"]) == (True, 3)
