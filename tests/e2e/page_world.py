"""A real Airflow with users of several roles, and tasks that wait for runqy."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests

from devtools.airflow import Airflow
from runqy_provider.inbox import callback_url
from runqy_sandbox.process.net import free_port
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: The users and their roles; the last one has none.
USERS = {"anna": "admin", "vera": "viewer", "nora": ""}

#: Seconds that anything here may take on a loaded machine.
LIMIT = 300.0

TASK_CODE = """
import pathlib
import time
from runqy_delivery import delivers, progress
from runqy_python import run, task

@task
@delivers
def handle(payload):
    if "fraction" in payload:
        progress(payload["fraction"], payload["text"])
    end = time.monotonic() + 1800
    while "hold" in payload and not pathlib.Path(payload["hold"]).exists():
        assert time.monotonic() < end, "the gate was not opened"
        time.sleep(0.05)
    return {"text": "done"}

run()
"""

DAGS = """
from datetime import timedelta
from airflow.sdk import DAG
from runqy_provider.operators.runqy import RunqyOperator

HOLD = {hold!r}
COMMON = {{"defer_after": timedelta(0), "sink": "webhook"}}

with DAG("podcast_transcripts", schedule=None):
    language = RunqyOperator(
        task_id="detect_language", runqy_queue="speech.default", payload={{}}, **COMMON
    )
    language >> RunqyOperator.partial(
        task_id="transcribe", runqy_queue="speech.default", **COMMON
    ).expand(
        payload=[
            {{
                "hold": HOLD,
                "fraction": 0.9 - 0.2 * n,
                "text": f"minute {{54 - 12 * n}} of 60",
            }}
            for n in range(5)
        ]
    )

with DAG("product_images", schedule=None):
    RunqyOperator(
        task_id="upscale",
        runqy_queue="images.high",
        payload={{"hold": HOLD, "fraction": 0.8, "text": "tile 12 of 15"}},
        **COMMON,
    )
    RunqyOperator(
        task_id="render_video", runqy_queue="video.default", payload={{}}, **COMMON
    )
"""

#: How many tasks wait in the end: all but ``detect_language``.
WAITING = 7

#: The DAGs in the order in which they start; how many tasks wait then, and how many of
#: these have begun, and have reported progress.
PROGRESS = (("product_images", 2, 1), ("podcast_transcripts", WAITING, 4))


@dataclass
class PageWorld:
    """A running Airflow with waiting tasks.

    Attributes:
        airflow: The Airflow; it asks for passwords.
        sandbox: runqy, and its Redis.
        secret: The callback secret of the connection ``runqy_default``.
    """

    airflow: Airflow
    sandbox: Sandbox
    secret: str

    def password(self, user: str) -> str:
        """Return the password of a user."""
        name = "simple_auth_manager_passwords.json.generated"
        return str(json.loads((self.airflow.home / name).read_text())[user])

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """Send a request to Airflow's API as an admin."""
        login = {"username": "anna", "password": self.password("anna")}
        token = requests.post(f"{self.airflow.url}/auth/token", json=login, timeout=60)
        headers = {"Authorization": f"Bearer {token.json()['access_token']}"}
        url = f"{self.airflow.url}{path}"
        return requests.request(method, url, headers=headers, timeout=60, **more)

    @contextmanager
    def connection(self, conn_id: str, **fields: Any) -> Iterator[None]:
        """Have one more connection in the database, like ``runqy_default``."""
        base = f"{self.airflow.url}/runqy"
        given = self.sandbox.connections(base, self.secret)["runqy_default"]
        body = {**given, "connection_id": conn_id, **fields}
        body["extra"] = json.dumps(body["extra"])
        path = "/api/v2/connections"
        self.ask("POST", path, json=body).raise_for_status()
        yield
        self.ask("DELETE", f"{path}/{conn_id}").raise_for_status()

    def deliver(
        self,
        delivery_id: str,
        body: bytes,
        *,
        conn_id: str = "runqy_default",
        forged: bool = False,
    ) -> int:
        """Send a delivery, and return the status of the response."""
        base, until = f"{self.airflow.url}/runqy", int(time.time()) + 600
        secret = "forged" * 6 if forged else self.secret
        url = callback_url.url(base, secret, conn_id, delivery_id, until)
        return requests.post(url, data=body, timeout=60).status_code

    def stop_all_but_api_server(self) -> None:
        """Stop what would act on tasks that a test inserts into the database."""
        for name in ("triggerer", "scheduler", "dag-processor"):
            process = self.airflow.processes.pop(name)
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def page_world(folder: Path) -> Iterator[PageWorld]:
    """Start a sandbox and Airflow, and wait until the tasks of two DAGs wait.

    Args:
        folder: An empty folder for their files.
    """
    code, dags = folder / "code", folder / "dags"
    code.mkdir()
    dags.mkdir()
    (code / "main.py").write_text(TASK_CODE)
    (dags / "jobs.py").write_text(DAGS.format(hold=str(folder / "gate")))
    port, secret = free_port(), secrets.token_hex(32)
    settings = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
            f"{user}:{role}" for user, role in USERS.items()
        ),
    }
    with Sandbox(_queues(str(code)), concurrency=4, processes=3) as sandbox:
        connections = sandbox.connections(f"http://127.0.0.1:{port}/runqy", secret)
        airflow = Airflow(
            folder / "airflow", dags, connections, port=port, environment=settings
        )
        with airflow:
            world = PageWorld(airflow, sandbox, secret)
            # One after the other: the images need one of the worker's four slots.
            for dag_id, waiting, running in PROGRESS:
                _trigger(world, dag_id)
                _wait_until_deferred(world, waiting, running)
            yield world


def _queues(code: str) -> dict[str, Any]:
    sub_queues = [{"name": "high", "priority": 2}, {"name": "low", "priority": 1}]
    return {
        "queues": {
            "speech": {"task_code": code},
            "images": {"task_code": code, "sub_queues": sub_queues},
            "video": {"priority": 1},
        }
    }


def _trigger(world: PageWorld, dag_id: str) -> None:
    end = time.monotonic() + LIMIT
    while world.ask("GET", f"/api/v2/dags/{dag_id}").status_code != requests.codes.ok:
        assert time.monotonic() < end, f"{dag_id} was not parsed"
        time.sleep(0.5)
    body = {"logical_date": None}
    world.ask("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body).raise_for_status()


def _wait_until_deferred(world: PageWorld, waiting: int, running: int) -> None:
    """Wait until so many tasks wait, and the progress of some has arrived."""
    end = time.monotonic() + LIMIT
    while True:
        rows = world.ask("GET", "/view/runqy/api/waits").json()["rows"]
        known = [row for row in rows if row["progress"] is not None]
        if len(rows) == waiting and len(known) >= running:
            return
        assert time.monotonic() < end, f"these wait: {rows}"
        time.sleep(0.5)
