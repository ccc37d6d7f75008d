"""With ``[core] multi_team`` the receiver finds connections of teams."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.connection import Connection
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

    with create_session() as session:
        session.add(
            Connection(conn_id="ours", conn_type="runqy", host="h", team_name="a")
        )
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
