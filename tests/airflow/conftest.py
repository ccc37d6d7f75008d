"""The sandbox, a receiver that stands alone, and Airflow's connections to both."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from runqy_provider.hooks import access
from runqy_provider.sandbox.loopback import free_port
from runqy_provider.sandbox.sandbox import Sandbox
from runqy_provider.sinks import s3_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

sys.path.insert(0, str(Path(__file__).parent))

DAGS = Path(__file__).parents[2] / "dags"

TASK_CODE = """
import time
from runqy_python import RetryableError, run, task
from runqy_delivery import Result, delivers

@task
@delivers
def handle(payload):
    time.sleep(payload.get("seconds", 0))
    if "error" in payload:
        raise ValueError(payload["error"])
    if "bytes" in payload:
        return Result(b"x" * payload["bytes"], content_type="image/png")
    return payload.get("value")

run()
"""

SILENT = """
from runqy_python import run, task

@task
def handle(payload):
    return None

run()
"""


@dataclass
class World:
    """The outside world: the sandbox, and a receiver for its deliveries."""

    sandbox: Sandbox
    receiver_url: str
    connections: dict[str, dict[str, Any]]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    code = tmp_path_factory.mktemp("task_code")
    for name, text in (("helper", TASK_CODE), ("silent", SILENT)):
        (code / name).mkdir()
        (code / name / "main.py").write_text(text)
    queues: dict[str, Any] = {
        "helper": {"task_code": str(code / "helper")},
        "silent": {"task_code": str(code / "silent")},
        "guide_webhook": {"task_code": str(DAGS / "task_code" / "guide_webhook")},
        "guide_s3": {"task_code": str(DAGS / "task_code" / "guide_s3")},
        "idle": {"priority": 1},
        "split": {"sub_queues": [{"name": "high", "priority": 2}]},
        "typed": {"input": [{"name": "prompt", "type": ["string"], "required": True}]},
    }
    secret = secrets.token_hex(16)
    with Sandbox({"queues": queues}, retry_unit=0.1) as sandbox:
        port = free_port()
        environment = {
            "RUNQY_INBOX_REDIS_URL": sandbox.redis_url,
            "RUNQY_CALLBACK_SECRET": secret,
        }
        receiver = subprocess.Popen(
            [sys.executable, "-m", "runqy_provider.receiver", "--port", str(port)],
            env={**os.environ, **environment},
            stderr=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_for(f"{url}/health", receiver)
            yield World(sandbox, url, sandbox.connections(url, secret))
        finally:
            receiver.terminate()
            receiver.wait(10)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        assert process.poll() is None, "the receiver ended"
        try:
            httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(url)


Connect = "Callable[..., dict[str, dict[str, Any]]]"


@pytest.fixture
def connect(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, dict[str, Any]]]:
    """Give Airflow the connections, with changes to the fields of runqy_default."""

    def connect(
        *,
        without: tuple[str, ...] = (),
        fields: Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> dict[str, dict[str, Any]]:
        connections = json.loads(json.dumps(world.connections))
        runqy = connections["runqy_default"]
        runqy.update(fields or {})
        runqy["extra"].update(extra)
        for name in without:
            runqy["extra"].pop(name, None)
        for conn_id, connection in connections.items():
            name = f"AIRFLOW_CONN_{conn_id.upper()}"
            monkeypatch.setenv(name, json.dumps(connection))
        access._remembered.clear()
        s3_client._clients.clear()
        return connections

    connect()
    return connect


@pytest.fixture
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no scheduler here that could mistake a quick resume."""
    monkeypatch.setenv("AIRFLOW__RUNQY__SETTLE_SECONDS", "0")
