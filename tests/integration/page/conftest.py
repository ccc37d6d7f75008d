"""Airflow's own API application in this process, with its database and real users."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.airflow_compat import PROCESS_CONTEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine
    from starlette.testclient import TestClient

#: Users of Airflow's simple auth manager, and their roles; the last one has none.
USERS = {"anna": "admin", "olga": "op", "vera": "viewer", "nora": ""}

#: Where Airflow mounts the page.
PAGE = "/view/runqy"

#: Seconds that anything here may take on a loaded machine.
LIMIT = 30.0


@pytest.fixture(scope="package")
def engine() -> Engine:
    """Airflow's database, with all tables."""
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, check=True, capture_output=True, env=os.environ)
    from airflow.settings import engine

    assert engine is not None
    return engine


@pytest.fixture(scope="package")
def client(engine: Engine) -> Iterator[TestClient]:
    """A client of Airflow's API server; nothing is cached for long."""
    from starlette.routing import Mount
    from starlette.testclient import TestClient

    from runqy_provider.plugins.page import data

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Airflow's own
        users = ",".join(f"{name}:{role}" for name, role in USERS.items())
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", users)
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "s" * 64)
        patch.setenv(PROCESS_CONTEXT, "server")  # not all versions do
        for name in ("WAITS_TTL", "LOOK_TTL"):
            patch.setattr(data, name, 0.0)
        from airflow.api_fastapi.app import create_app, purge_cached_app

        purge_cached_app()
        app = create_app(apps="core")
        # Airflow keeps this application, and leaves it open: it is used again by
        # tests with another event loop.
        receiver: Any
        [receiver] = [
            each.app
            for each in app.routes
            if isinstance(each, Mount) and each.path == "/runqy"
        ]
        with TestClient(app) as client:
            assert client.portal is not None
            lifespan: Any = receiver.router.lifespan_context(receiver)
            with client.portal.wrap_async_context_manager(lifespan):
                yield client
        purge_cached_app()


def token_of(client: TestClient, user: str) -> str:
    """Log a user in with the password, and return the token."""
    name = "simple_auth_manager_passwords.json.generated"
    passwords = json.loads(Path(os.environ["AIRFLOW_HOME"], name).read_text())
    login = {"username": user, "password": passwords[user]}
    return str(client.post("/auth/token", json=login).json()["access_token"])


@pytest.fixture
def headers(client: TestClient) -> dict[str, str]:
    """The headers of a request of an admin."""
    client.cookies.clear()
    return {"Authorization": f"Bearer {token_of(client, 'anna')}"}


@pytest.fixture
def get(client: TestClient) -> Callable[..., Any]:
    """Get something of the page as a user, who has logged in with a password."""

    def get(path: str, user: str | None = "anna", **query: Any) -> Any:
        client.cookies.clear()
        headers = {}
        if user is not None:
            headers["Authorization"] = f"Bearer {token_of(client, user)}"
        return client.get(f"{PAGE}{path}", headers=headers, params=query)

    return get


@pytest.fixture
def view_of(get: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Return what the page shows of a connection, looked at after the call."""

    def view_of(conn_id: str, user: str = "anna") -> dict[str, Any]:
        called_at = time.time()
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            found = get("/api/connections", user).json()["connections"]
            for view in found:
                if view["conn_id"] == conn_id and view.get("checked_at", 0) > called_at:
                    return dict(view)
        raise AssertionError(f"{conn_id} was not looked at: {found}")

    return view_of
