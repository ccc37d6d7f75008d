"""The servers that the tests use: the sandbox, and a receiver without Airflow."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.receiver import running_receiver
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DAGS = Path(__file__).parents[2] / "dags"

TASK_CODE = """
import json
import logging
import pathlib
import time
from runqy_python import RetryableError, run, task
from runqy_delivery import Result, delivers, progress

@task
@delivers
def handle(payload):
    if "log" in payload:
        logging.getLogger("model").warning(payload["log"])
    if "progress" in payload:
        progress(payload["progress"], "rendering")
    time.sleep(payload.get("seconds", 0))
    end = time.monotonic() + 60
    while "hold" in payload and not pathlib.Path(payload["hold"]).exists():
        assert time.monotonic() < end, "the gate was not opened"
        time.sleep(0.02)
    if "error" in payload:
        raise ValueError(payload["error"])
    if not pathlib.Path(payload.get("fails_without", "/")).exists():
        raise ValueError("the file is not there yet")
    if "bytes" in payload:
        return Result(b"x" * payload["bytes"], content_type="image/png")
    if "json" in payload:
        return json.loads(payload["json"])
    return time.time() if "clock" in payload else payload.get("value")

run()
"""

SILENT = """
import pathlib
import time
from runqy_python import run, task

@task
def handle(payload):
    end = time.monotonic() + 60
    while "hold" in payload and not pathlib.Path(payload["hold"]).exists():
        assert time.monotonic() < end, "the gate was not opened"
        time.sleep(0.02)
    return None

run()
"""


def example_code(*names: str) -> dict[str, str]:
    """Return the source of the examples' task code, by the names of their folders."""
    folder = DAGS / "task_code"
    return {name: (folder / name / "main.py").read_text() for name in names}


class Gate:
    """Holds jobs whose payload has ``**gate.closed``, until it is opened."""

    def __init__(self, path: Path) -> None:
        self.closed = {"hold": str(path)}
        self._path = path

    def open(self) -> None:
        """Let the jobs continue."""
        self._path.touch()


@dataclass
class Stack:
    """The sandbox, a receiver for its deliveries, and connections to both."""

    sandbox: Sandbox
    receiver_url: str
    connections: dict[str, dict[str, Any]]


@contextmanager
def make_stack(
    code: Path,
    environment: Mapping[str, str] | None = None,
    more_code: Mapping[str, str] | None = None,
) -> Iterator[Stack]:
    """Start a sandbox and a receiver.

    Args:
        code: An empty folder for task code.
        environment: Environment variables of the task code.
        more_code: The source of the task code of more queues, by queue name.
    """
    texts = {"helper": TASK_CODE, "silent": SILENT, **(more_code or {})}
    for name, text in texts.items():
        (code / name).mkdir()
        (code / name / "main.py").write_text(text)
    queues: dict[str, Any] = {
        **{name: {"task_code": str(code / name)} for name in texts},
        "stored": {
            "task_code": str(code / "helper"),
            "deployment": {"redis_storage": True},
        },
        "stored_guide": {
            "task_code": str(DAGS / "task_code" / "guide_redis_storage"),
            "deployment": {"redis_storage": True},
        },
        "guide_webhook": {"task_code": str(DAGS / "task_code" / "guide_webhook")},
        "guide_s3": {"task_code": str(DAGS / "task_code" / "guide_s3")},
        "idle": {"priority": 1},
        "split": {"sub_queues": [{"name": "high", "priority": 2}]},
        "typed": {"input": [{"name": "prompt", "type": ["string"], "required": True}]},
    }
    secret = secrets.token_hex(16)
    sandbox = Sandbox({"queues": queues}, retry_unit=0.1, environment=environment)
    with sandbox, running_receiver(sandbox.redis_url, secret) as receiver:
        connections = sandbox.connections(receiver.url, secret)
        yield Stack(sandbox, receiver.url, connections)
