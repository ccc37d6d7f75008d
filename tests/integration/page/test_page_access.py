"""Who may see what: Airflow's own authorisation, with users of each role."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, insert

from runqy_provider.airflow_compat import RELEASE
from runqy_sandbox.process.net import free_port
from tests.support.waiting_tasks import WaitingTasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

pytestmark = pytest.mark.usefixtures("connect")

FILES = ("/", "/page.css", "/page.js", "/waits.js")
DATA = ("/api/connections", "/api/waits")


@pytest.fixture
def waiting_task(engine: Engine) -> Iterator[None]:
    """One task that waits."""
    with WaitingTasks("secret_dag").inserted(engine):
        yield


@pytest.mark.parametrize("path", [*FILES, *DATA, "/no_such_file", "/docs"])
def test_page_unauthenticated_request_is_refused(
    get: Callable[..., Any], path: str
) -> None:
    response = get(path, user=None)

    assert response.status_code == 401
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.usefixtures("waiting_task")
def test_page_forged_token_is_refused(client: Any) -> None:
    headers = {"Authorization": "Bearer e30.e30.e30"}
    for path in (*FILES, *DATA):
        response = client.get(f"/view/runqy{path}", headers=headers)
        assert response.status_code == 403
        assert "secret_dag" not in response.text


@pytest.mark.usefixtures("waiting_task")
@pytest.mark.parametrize(
    ("user", "page", "connections", "waits"),
    [
        ("anna", 200, 200, 200),
        ("olga", 200, 200, 200),
        ("vera", 200, 403, 200),
        ("nora", 403, 403, 403),
    ],
)
def test_page_role_decides_what_is_shown(
    get: Callable[..., Any], user: str, page: int, connections: int, waits: int
) -> None:
    responses = [get(path, user) for path in ("/", *DATA)]

    assert [one.status_code for one in responses] == [page, connections, waits]
    if waits == 403:
        assert not any("secret_dag" in one.text for one in responses)
        assert "Ask an administrator" in responses[0].text
    if connections == 403:
        assert not any("127.0.0.1" in one.text for one in responses)


def test_page_responses_allow_no_other_origin(get: Callable[..., Any]) -> None:
    for path in (*FILES, *DATA):
        headers = get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "http" not in policy.replace("https:", "http:")
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/redoc", "/app.py"])
def test_page_publishes_no_schema_and_no_other_file(
    get: Callable[..., Any], path: str
) -> None:
    assert get(path).status_code == 404


def test_page_json_contains_no_secret(
    get: Callable[..., Any], view_of: Callable[..., Any], connect: Any
) -> None:
    """Not even if a message quotes the address of an unavailable server."""
    address = f"http://user:passwort@127.0.0.1:{free_port()}"
    fields = connect(
        fields={"host": address},
        callback_secret="a-callback-secret-of-40-characters",
        signing_secret="whsec_c2lnbnMgYm9kaWVzIGZvciBhbGwgdGVzdHM=",
    )["runqy_default"]

    view = view_of("runqy_default")

    assert "cannot be reached" in view["server"]["problem"]
    text = json.dumps(view) + get("/api/waits").text
    extra = fields["extra"]
    secrets = [fields["password"], extra["callback_secret"], extra["admin_api_key"]]
    for secret in (*secrets, "whsec_", "passwort"):
        assert secret not in text


@pytest.mark.skipif(RELEASE < (3, 2), reason="Airflow has no teams before 3.2")
def test_page_user_of_a_team_sees_waits_of_the_team_only(
    client: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.team import Team, dag_bundle_team_association_table

    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    ours = WaitingTasks("ours", bundle="of_red")
    theirs = WaitingTasks("theirs", bundle="of_blue")
    bundles = {"of_red": "red", "of_blue": "blue"}
    with ours.inserted(engine), theirs.inserted(engine):
        with engine.begin() as connection:
            for bundle, team in bundles.items():
                connection.execute(insert(Team).values(name=team))
                connection.execute(
                    insert(dag_bundle_team_association_table).values(
                        dag_bundle_name=bundle, team_name=team
                    )
                )
        user = SimpleAuthManagerUser(username="tina", role="viewer", teams=["red"])
        token = get_auth_manager().generate_jwt(user)
        headers = {"Authorization": f"Bearer {token}"}
        seen = client.get("/view/runqy/api/waits", headers=headers).json()
        with engine.begin() as connection:
            connection.execute(delete(dag_bundle_team_association_table))
            connection.execute(delete(Team).where(Team.name.in_(bundles.values())))
    with engine.begin() as connection:
        connection.execute(
            delete(DagBundleModel).where(DagBundleModel.name.in_(bundles))
        )

    assert [row["dag_id"] for row in seen["rows"]] == ["ours"]
    assert (seen["total"], len(seen["queues"])) == (1, 1)
