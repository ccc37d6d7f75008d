"""Start Airflow's real triggerer for a test, and read its report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from runqy_sandbox.process.watchdog import run_with_watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Triggerer:
    """A triggerer process that runs these triggers with these connections."""

    def __init__(
        self,
        folder: Path,
        triggers: dict[int, Any],
        connections: dict[str, Any],
        tasks: dict[str, Any] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        refused: Mapping[str, str] | None = None,
    ) -> None:
        spec = {
            "tasks": tasks or {},
            "refused": dict(refused or {}),
            "triggers": {n: each.serialize() for n, each in triggers.items()},
            "connections": connections,
        }
        spec_path = folder / "spec.json"
        spec_path.write_text(json.dumps(spec))
        self._report = folder / "report.json"
        self._log = (folder / "log").open("w+")
        script = Path(__file__).parent / "triggerer.py"
        # Its environment has no connections, so that it must ask Airflow for them.
        clean = {k: v for k, v in os.environ.items() if "AIRFLOW_CONN" not in k}
        self._ending = ExitStack()
        self._process = self._ending.enter_context(
            run_with_watchdog(
                [sys.executable, str(script), str(spec_path), str(self._report)],
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env={**clean, **(environment or {})},
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._ending.close()
        self._log.close()

    def __getattr__(self, name: str) -> Any:
        try:
            return json.loads(self._report.read_text())[name]
        except FileNotFoundError:
            return {}

    def run_until(self, done: Callable[[], Any]) -> None:
        end = time.monotonic() + 40
        while not done():
            if time.monotonic() > end or self._process.poll() is not None:
                self._log.seek(0)
                pytest.fail(f"{self.failures} {self._log.read()[-3000:]}")
            time.sleep(0.05)
