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
from typing import TYPE_CHECKING, Any

import pytest

from runqy_sandbox.process.watchdog import run_with_watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

#: The program of the process, and where it is.
MODULE, ROOT = "tests.support.triggerer", Path(__file__).parents[2]


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
        # Its environment has no connections, so that it must ask Airflow for them.
        clean = {k: v for k, v in os.environ.items() if "AIRFLOW_CONN" not in k}
        self._ending = ExitStack()
        self._process = self._ending.enter_context(
            run_with_watchdog(
                [sys.executable, "-m", MODULE, str(spec_path), str(self._report)],
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env={**clean, "PYTHONPATH": str(ROOT), **(environment or {})},
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

    def drop(self, numbers: list[int]) -> None:
        """Let no task wait for these triggers any more: they are cancelled."""
        self._write("drop", json.dumps(numbers))

    def stop(self) -> dict[str, Any]:
        """End the process of the triggers as Airflow does.

        Returns:
            Its ``exit_code``, and how many ``seconds`` it took.
        """
        self._write("stop", "")
        self.run_until(lambda: self.stopped)
        stopped: dict[str, Any] = self.stopped
        return stopped

    def _write(self, name: str, text: str) -> None:
        path = self._report.with_name(name)
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").rename(path)

    def run_until(self, done: Callable[[], Any]) -> None:
        """Wait until something is done, as long as the report goes on changing."""
        seen, end = "", time.monotonic() + 60
        while not done():
            is_over = self._process.poll() is not None and not done()
            if (news := self._read_report()) != seen:
                seen, end = news, time.monotonic() + 60
            if time.monotonic() > end or is_over:
                self._log.seek(0)
                pytest.fail(f"{self.failures} {self._log.read()[-3000:]}")
            time.sleep(0.05)

    def _read_report(self) -> str:
        return self._report.read_text() if self._report.exists() else ""
