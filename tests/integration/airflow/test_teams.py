"""With ``[core] multi_team``, the receiver finds connections of teams."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.connection import Connection
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from runqy_provider.airflow_compat import RELEASE, AirflowNotFoundException, BaseHook
from runqy_provider.plugins import receiver
from runqy_provider.plugins.receiver import ConnectionCache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def not_found(conn_id: str) -> Any:
    """Get no connection, as Airflow's SDK does for connections of teams."""
    raise AirflowNotFoundException(conn_id)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Airflow's table of connections, with two that belong to a team."""
    engine = create_engine(f"sqlite:///{tmp_path}/airflow.db")
    Connection.metadata.create_all(engine, tables=[Connection.__table__])

    @contextmanager
    def create_session() -> Iterator[Session]:
        with Session(engine) as session:
            yield session
            session.commit()

    extra = json.dumps({"redis_conn_id": "inbox", "callback_secret": "s" * 32})
    with create_session() as session:
        session.add(
            Connection(
                conn_id="ours",
                conn_type="runqy",
                host="runqy",
                extra=extra,
                team_name="a",
            )
        )
        session.add(
            Connection(conn_id="inbox", conn_type="redis", host="h", team_name="a")
        )
    monkeypatch.setattr(receiver, "create_session", create_session)
    monkeypatch.setattr(BaseHook, "get_connection", not_found)
    yield
    engine.dispose()


@pytest.mark.skipif(RELEASE < (3, 2), reason="Airflow has no teams yet")
@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("multi_team", "conn_id", "redis_address"),
    [("True", "ours", "h:6379/0"), ("True", "other", None), ("False", "ours", None)],
)
async def test_connection_cache_connection_of_team_needs_multi_team(
    multi_team: str,
    conn_id: str,
    redis_address: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", multi_team)

    found = await ConnectionCache(ttl=60).find(conn_id)

    assert (None if found is None else found.redis.address) == redis_address
