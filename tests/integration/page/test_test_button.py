"""What Airflow's Test button says, through Airflow's own API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from runqy_provider.airflow_compat import PROCESS_CONTEXT
from runqy_provider.checks import airflow_database
from runqy_provider.hooks.runqy import RunqyHook
from runqy_sandbox.process.net import free_port
from tests.support.triggerers import Triggerers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from tests.support.stack import Stack

pytestmark = [
    pytest.mark.usefixtures("connect"),
    # Airflow's own, about what its API server does.
    pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated"),
]

CONN_ID = "gpu_cluster"


@pytest.fixture
def press(
    client: Any, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., list[str]]]:
    """Save connections with the same fields, test the first, and return the lines."""
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    saved: list[str] = []

    def press(*conn_ids: str, extra: dict[str, Any], **fields: Any) -> list[str]:
        body = {"conn_type": "runqy", **fields, "extra": json.dumps(extra)}
        for conn_id in conn_ids:
            given = {**body, "connection_id": conn_id}
            client.post("/api/v2/connections", headers=headers, json=given)
            saved.append(conn_id)
        first = {**body, "connection_id": conn_ids[0]}
        answer = client.post("/api/v2/connections/test", headers=headers, json=first)
        return str(answer.json()["message"]).splitlines()

    yield press
    for conn_id in saved:
        client.delete(f"/api/v2/connections/{conn_id}", headers=headers)


def test_test_button_empty_connection_names_all_missing_fields_at_once(
    press: Callable[..., list[str]],
) -> None:
    lines = press(CONN_ID, extra={})

    [line] = [line for line in lines if line.startswith("[failed]")]
    for field in ("URL of the runqy server", "API key", "callback_secret"):
        assert field in line


def test_test_button_sink_without_inbox_asks_for_no_callback_secret(
    press: Callable[..., list[str]],
) -> None:
    lines = press(CONN_ID, extra={"sink": "s3://results/x"})

    assert "Tasks also need an API key (password)." in lines[0]


def test_test_button_connection_stored_once_has_its_own_name(
    press: Callable[..., list[str]],
) -> None:
    lines = press(CONN_ID, host="http://127.0.0.1", port=free_port(), extra={})

    assert f"connection '{CONN_ID}'" in lines[0]


@pytest.mark.parametrize("context", ["server", "client"])
def test_test_button_unknown_name_is_this_connection(
    press: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, context: str
) -> None:
    """Two connections have the same fields, or the database cannot be asked."""
    monkeypatch.setenv(PROCESS_CONTEXT, context)
    extra = {"redis_conn_id": "none_such"}

    lines = press(
        CONN_ID, "other", port=free_port(), host="http://127.0.0.1", extra=extra
    )

    server, inbox, callback = [one for one in lines if one.startswith("[failed]")][:3]
    assert "(this connection) cannot be reached" in server
    assert "named by this connection" in inbox
    assert "This connection has no" in callback
    assert "onnection '" not in server + callback


def test_test_button_sentence_of_two_checks_is_said_once(
    press: Callable[..., list[str]], stack: Stack
) -> None:
    runqy = stack.connections["runqy_default"]
    extra = {**runqy["extra"], "redis_conn_id": "none_such", "callback_secret": ""}
    del extra["callback_url"]

    lines = press(CONN_ID, host=runqy["host"], password=runqy["password"], extra=extra)

    text = "\n".join(lines)
    for words in ("no callback_url", "no callback_secret", "'none_such'"):
        assert text.count(words) == 1
    assert "cannot be used: see Callback URL." in text


def test_test_button_names_missing_triggerer(
    press: Callable[..., list[str]], engine: Engine
) -> None:
    def line() -> str:
        lines = press(CONN_ID, extra={})
        [found] = [one for one in lines if "] Triggerer: " in one]
        return found

    assert line().startswith("[warning] Triggerer: No triggerer of Airflow runs")
    with Triggerers(engine).running(0):
        assert line().startswith("[ok]")


def test_test_button_in_a_worker_says_nothing_of_triggerers(
    press: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROCESS_CONTEXT, "client")

    [line] = press(CONN_ID, extra={})

    assert line.startswith("[failed] Connection: ")


def test_test_button_database_unavailable_still_checks_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PROCESS_CONTEXT, "server")
    engine = sqlalchemy.create_engine("sqlite://")  # has no tables
    monkeypatch.setattr(
        airflow_database, "create_session", lambda: sqlalchemy.orm.Session(engine)
    )

    is_good, text = RunqyHook().test_connection()

    assert is_good, text
    assert "[ok] Server" in text
    engine.dispose()
