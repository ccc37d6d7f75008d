"""Connections, their health and their queues, with a real runqy sandbox."""

from __future__ import annotations

import json
import socket
import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import delete, insert

from runqy_sandbox.process.net import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect")


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The URL of a server that accepts connections, and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def queue_of(view: dict[str, Any], name: str) -> dict[str, Any]:
    [queue] = [queue for queue in view["queues"] if queue["name"] == name]
    return dict(queue)


def enqueue(stack: Stack, queue: str) -> None:
    httpx.post(
        f"{stack.sandbox.server_url}/queue/add",
        headers={"X-API-Key": stack.sandbox.client_key},
        json={"queue": queue, "timeout": 60, "data": {}},
    ).raise_for_status()


def test_connections_healthy_server_shows_queues_of_redis(
    view_of: Callable[..., Any], stack: Stack
) -> None:
    enqueue(stack, "idle.default")
    before = queue_of(view_of("runqy_default"), "idle.default")
    enqueue(stack, "idle.default")

    view = view_of("runqy_default")

    assert view["problem"] == view["queues_problem"] == ""
    assert view["server"] == {"address": stack.sandbox.server_url, "problem": ""}
    assert view["inbox"]["problem"] == ""
    assert view["inbox"]["address"].startswith("127.0.0.1:")
    idle = queue_of(view, "idle.default")
    assert (idle["pending"], idle["workers"]) == (before["pending"] + 1, 0)
    assert queue_of(view, "helper.default")["workers"] == 1
    assert idle["failed_today"] == 0


def test_connections_admin_key_alone_shows_the_same_queues(
    view_of: Callable[..., Any], connect: Any
) -> None:
    in_redis = view_of("runqy_default")["queues"]
    connect(without=("runqy_redis_conn_id",))

    from_api = view_of("runqy_default")["queues"]

    assert {queue["failed_today"] for queue in from_api} == {None}
    # The server knows queues that nobody has used or serves.
    known = {queue["name"]: queue for queue in from_api}
    for queue in in_redis:
        assert queue["failed_today"] >= 0
        assert known[queue["name"]]["workers"] == queue["workers"]
    # Jobs of other tests may still run in the other queues.
    [idle] = [queue for queue in in_redis if queue["name"] == "idle.default"]
    assert known["idle.default"] == idle | {"failed_today": None}


def test_connections_no_admin_key_and_no_redis_says_what_to_do(
    view_of: Callable[..., Any], connect: Any
) -> None:
    connect(without=("runqy_redis_conn_id", "admin_api_key"))

    view = view_of("runqy_default")

    assert view["queues"] is None
    assert "Set the admin key" in view["queues_problem"]
    assert view["server"]["problem"] == ""


def test_connections_wrong_admin_key_is_named(
    view_of: Callable[..., Any], connect: Any
) -> None:
    connect(without=("runqy_redis_conn_id",), admin_api_key="wrong-admin-key")

    view = view_of("runqy_default")

    assert view["queues"] is None
    assert "does not know the key" in view["queues_problem"]
    assert "wrong-admin-key" not in view["queues_problem"]


def test_connections_server_and_inbox_away_are_named(
    view_of: Callable[..., Any], connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {"conn_type": "redis", "host": "127.0.0.1", "port": free_port()}
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps(away))
    connect(
        fields={"host": f"http://127.0.0.1:{free_port()}"},
        redis_conn_id="away",
        runqy_redis_conn_id="away",
    )

    view = view_of("runqy_default")

    assert "cannot be reached" in view["server"]["problem"]
    assert "connection 'away'" in view["inbox"]["problem"]
    assert "connection 'away'" in view["queues_problem"]


def test_connections_missing_redis_connection_is_named(
    view_of: Callable[..., Any], connect: Any
) -> None:
    connect(redis_conn_id="no_such_redis")

    view = view_of("runqy_default")

    assert "'no_such_redis' does not exist" in view["inbox"]["problem"]
    assert view["server"]["problem"] == ""


def test_connections_misconfigured_one_is_named(
    view_of: Callable[..., Any], connect: Any
) -> None:
    connect(callback_secret="short")

    view = view_of("runqy_default")

    assert "fewer than 24 characters" in view["problem"]
    assert "server" not in view


def test_connections_silent_server_does_not_delay_the_others(
    get: Callable[..., Any],
    view_of: Callable[..., Any],
    silent_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = {"conn_type": "runqy", "host": silent_server, "extra": "{}"}
    conn_id = f"silent_{uuid.uuid4().hex}"
    monkeypatch.setattr("runqy_provider.plugins.page.look.TIMEOUT", 60.0)
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
    view_of("runqy_default")
    views: dict[str, Any] = {}
    while "checked_at" not in views.get("runqy_default", {}):
        found = get("/api/connections").json()["connections"]
        views = {view["conn_id"]: view for view in found}

    silent = views[conn_id]
    assert "server" not in silent, "it is still being looked at"
    assert silent["inbox"]["problem"] == "", "its inbox has answered"
    assert "checked_at" not in silent


def test_connections_silent_server_is_named(
    view_of: Callable[..., Any],
    silent_server: str,
    connect: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runqy_provider.plugins.page.look.TIMEOUT", 1.0)
    connect(fields={"host": silent_server})

    view = view_of("runqy_default")

    assert "did not answer within 1 s" in view["server"]["problem"]


def test_connections_of_the_database_are_listed_by_type(
    get: Callable[..., Any], engine: Engine
) -> None:
    from airflow.models.connection import Connection

    types = {"db_runqy": "runqy", "db_http": "http"}
    with engine.begin() as connection:
        for conn_id, conn_type in types.items():
            values = {"conn_id": conn_id, "conn_type": conn_type, "host": "h"}
            connection.execute(insert(Connection).values(**values))
    try:
        found = get("/api/connections", "olga").json()["connections"]
    finally:
        with engine.begin() as connection:
            connection.execute(delete(Connection).where(Connection.conn_id.in_(types)))

    assert [view["conn_id"] for view in found] == ["db_runqy", "runqy_default"]


def test_connections_uri_in_an_environment_variable_is_listed(
    get: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BY_URI", "runqy://127.0.0.1:1")
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", "http://127.0.0.1:1")
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", "{no JSON")

    found = get("/api/connections").json()["connections"]

    assert [view["conn_id"] for view in found] == ["by_uri", "runqy_default"]
    assert abs(get("/api/connections").json()["now"] - time.time()) < 60
