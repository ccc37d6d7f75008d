"""With ``[core] multi_team`` the receiver finds connections of teams."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.connection import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from runqy_provider.plugins import receiver

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Airflow's table of connections, with one that belongs to a team."""
    engine = create_engine("sqlite://")
    Connection.metadata.create_all(engine, tables=[Connection.__table__])

    @contextmanager
    def create_session() -> Iterator[Session]:
        with Session(engine) as session:
            yield session
            session.commit()

    extra = json.dumps({"redis_conn_id": "inbox", "callback_secret": "s" * 32})
    of_team = {"team_name": "a", "host": "h"}
    with create_session() as session:
        session.add(
            Connection(conn_id="ours", conn_type="runqy", extra=extra, **of_team)
        )
        session.add(Connection(conn_id="inbox", conn_type="redis", **of_team))
    monkeypatch.setattr(receiver, "create_session", create_session)
    yield
    engine.dispose()


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("multi_team", "conn_id", "host"),
    [("True", "ours", "h"), ("True", "other", None), ("False", "ours", None)],
)
def test_a_connection_of_a_team_is_found(
    multi_team: str, conn_id: str, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", multi_team)

    found = receiver._of_a_team(conn_id)

    assert (found.host if found is not None else None) == host


@pytest.mark.usefixtures("database")
def test_a_delivery_finds_the_redis_of_a_team_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(conn_id: str) -> Any:
        raise AirflowNotFoundException(conn_id)

    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    monkeypatch.setattr(receiver.BaseHook, "get_connection", refuse)

    door = receiver._door("ours")

    assert door is not None
    assert door.redis.address == "h:6379/0"
