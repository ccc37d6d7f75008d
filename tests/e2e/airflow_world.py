"""A real Airflow beside a sandbox, with good and with broken connections."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.airflow import Airflow
from devtools.client import AirflowClient
from devtools.receiver import running_receiver
from runqy_sandbox.process.net import free_port
from runqy_sandbox.sandbox import Sandbox
from tests.support.stack import DAGS, SILENT
from tests.support.web_page import web_page

if TYPE_CHECKING:
    from collections.abc import Iterator

CRASHING = """
import os
from runqy_python import run, task

@task
def handle(payload):
    os._exit(3)

run()
"""

#: Seconds for which the workers here retry a delivery that is not accepted.
RETRY_FOR = 15


@dataclass
class World:
    """A running Airflow, and what a user must know to make a connection to runqy.

    Attributes:
        airflow: The Airflow.
        client: Its API.
        sandbox: runqy, its Redis and a bucket.
        callback_url: Address of the receiver in Airflow's API server.
        connections: The connections that Airflow has, by id; ``good`` is not broken.
    """

    airflow: Airflow
    client: AirflowClient
    sandbox: Sandbox
    callback_url: str
    connections: dict[str, dict[str, Any]]


@contextmanager
def airflow_world(folder: Path) -> Iterator[World]:
    """Start a sandbox and Airflow, with the DAGs of this folder.

    Args:
        folder: An empty folder for their files.
    """
    database, code = folder / "results.db", folder / "code"
    with closing(sqlite3.connect(database)) as opened:
        opened.execute(
            "CREATE TABLE tasks (id text PRIMARY KEY, status text NOT NULL, "
            "result text, completed_at timestamp)"
        )
    port, secret = free_port(), secrets.token_hex(32)
    callback_url = f"http://127.0.0.1:{port}/runqy"
    environment = {
        "RUNQY_DELIVERY_DATABASE_URL": "oracle://results.example.com/results",
        "RUNQY_DELIVERY_RETRY_FOR": str(RETRY_FOR),
    }
    with ExitStack() as stack:
        sandbox = stack.enter_context(
            Sandbox(_queues(code), environment=environment, retry_unit=1, concurrency=8)
        )
        connections = sandbox.connections(callback_url, secret)
        connections["good"] = connections.pop("runqy_default")
        connections["results_db"] = {"conn_type": "sqlite", "host": str(database)}
        page = stack.enter_context(web_page())
        other = stack.enter_context(
            running_receiver(
                sandbox.redis_url,
                secrets.token_hex(32),
                "--conn-id",
                "wrong_secret",
            )
        )
        connections |= {
            "wrong_key": _changed(connections["good"], password="wrong"),
            "redis_away": _changed(connections["good"], redis_conn_id="away"),
            "away": {"conn_type": "redis", "host": "127.0.0.1", "port": free_port()},
            "callback_unreachable": _changed(
                connections["good"], callback_url=f"http://127.0.0.1:{free_port()}"
            ),
            "callback_web_page": _changed(connections["good"], callback_url=page),
            "wrong_secret": _changed(connections["good"], callback_url=other.url),
            "no_admin_key": _changed(
                connections["good"], admin_api_key=None, runqy_redis_conn_id=None
            ),
        }
        airflow = Airflow(
            folder / "airflow",
            Path(__file__).parent / "dags",
            connections,
            parallelism=8,
            port=port,
        )
        stack.enter_context(airflow)
        client = AirflowClient(airflow.url)
        yield World(airflow, client, sandbox, callback_url, connections)


def _changed(
    connection: dict[str, Any], password: str | None = None, **extra: Any
) -> dict[str, Any]:
    fields = {**connection["extra"], **extra}
    return {
        **connection,
        "password": password or connection["password"],
        "extra": {name: value for name, value in fields.items() if value is not None},
    }


def _queues(code: Path) -> dict[str, Any]:
    for name, text in {"silent": SILENT, "crashing": CRASHING}.items():
        (code / name).mkdir(parents=True)
        (code / name / "main.py").write_text(text)
    transcribe = str(DAGS / "task_code" / "transcribe")
    return {
        "queues": {
            "transcribe": {
                "task_code": transcribe,
                "sub_queues": [{"name": "high", "priority": 2}],
            },
            "no_driver": {"task_code": transcribe},
            "silent": {"task_code": str(code / "silent")},
            "crashing": {"task_code": str(code / "crashing")},
            "idle": {"priority": 1},
        }
    }
