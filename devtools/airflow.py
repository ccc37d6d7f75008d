# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A real Airflow on this machine: its processes, started and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import requests

from runqy_sandbox.process.interrupts import hold_interrupts
from runqy_sandbox.process.net import free_port
from runqy_sandbox.process.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")

#: Seconds that Airflow may take to start, and to stop.
START_LIMIT = 300.0
STOP_LIMIT = 20.0


class AirflowError(Exception):
    """Airflow did not start, or one of its processes ended."""


@dataclass
class Airflow:
    """Airflow with its own home, database and ports.

    Args:
        home: Folder for its database, logs and configuration.
        dags: Folder of the DAGs.
        connections: Connections by id, as JSON of Airflow; read whenever a process
            starts.
        database: SQLAlchemy URL; by default SQLite in ``home``.
        parallelism: Worker slots.
        environment: More settings.
        say: Prints what happens.
    """

    home: Path
    dags: Path
    connections: Mapping[str, Mapping[str, Any]]
    database: str | None = None
    parallelism: int = 4
    port: int = field(default_factory=free_port)
    environment: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = lambda _message: None

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._watchdog: Watchdog | None = None
        self._settings = self._make_settings()
        self._is_migrated = False

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make the database, start all processes and wait until all are healthy.

        Raises:
            AirflowError: A process did not start; the message has the end of its log.
        """
        # Ends the remaining processes of Airflow if this process is killed.
        self._watchdog = Watchdog()
        self.migrate()
        self.say(f"Starting Airflow: {', '.join(COMPONENTS)} ...")
        for component in COMPONENTS:
            self.start_component(component)
        self._wait_until_healthy()

    def migrate(self) -> None:
        """Make the database, if that is not done yet."""
        if not self._is_migrated:
            self.home.mkdir(parents=True, exist_ok=True)
            self.say("Making Airflow's database ...")
            self.run("db", "migrate")
            self._is_migrated = True

    def start_component(
        self,
        component: str,
        name: str | None = None,
        *options: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start one of Airflow's processes, in a process group of its own.

        Args:
            component: The component of Airflow, such as ``triggerer`` or
                ``celery worker``.
            name: Its name, if it is a second process of its component.
            options: More options of its command.
            environment: All of its environment, in place of this Airflow's.
        """
        arguments = [*component.split(), *options]
        if component == "api-server":
            arguments += ["--port", str(self.port), "--host", "127.0.0.1"]
        with self.log_of(name or component).open("ab") as log, hold_interrupts():
            self.processes[name or component] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                env=self._environment() if environment is None else environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.home,
            )
            self.watch(self.processes[name or component].pid)

    def watch(self, group: int) -> None:
        """Let the watchdog also end this process group if this process is killed."""
        if self._watchdog is not None:
            self._watchdog.watch(group)

    def restart_component(self, component: str, environment: Mapping[str, str]) -> None:
        """Stop one of Airflow's processes and start it with more settings."""
        process = self.processes.pop(component)
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_LIMIT)
        _signal_group(process, signal.SIGKILL)
        process.wait()
        self._settings.update(environment)
        self.start_component(component)
        self._wait_until_healthy()

    def kill(self, component: str) -> None:
        """End one of Airflow's processes, and what it started, with SIGKILL."""
        process = self.processes.pop(component)
        _signal_group(process, signal.SIGKILL)
        process.wait()

    def task_processes(self) -> list[psutil.Process]:
        """Return the processes in which tasks run."""
        scheduler = psutil.Process(self.processes["scheduler"].pid)
        found = []
        for process in scheduler.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                # The supervisor of a task has forked it, and has the same title.
                titles = [process.cmdline(), psutil.Process(process.ppid()).cmdline()]
                if all("airflow worker -- " in " ".join(title) for title in titles):
                    found.append(process)
        return found

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Run one of Airflow's commands and return what it prints.

        Args:
            arguments: The command.
            environment: More settings.

        Raises:
            AirflowError: It failed; the message has its output.
        """
        return self.run_python("-m", "airflow", *arguments, environment=environment)

    def run_python(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> str:
        """Run Python with the settings of this Airflow, and return what it prints.

        Args:
            arguments: Those of Python.
            environment: More settings.

        Raises:
            AirflowError: It failed; the message has its output.
        """
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**self._environment(), **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=START_LIMIT,
            cwd=self.home,
        )
        if done.returncode:
            raise AirflowError(
                f"python {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def log_of(self, component: str) -> Path:
        """Return the file that a process writes its output to."""
        return self.home / f"{component}.log"

    def stop(self) -> None:
        """Stop all processes and what they started, newest first."""
        for component in reversed(list(self.processes)):
            _signal_group(self.processes[component], signal.SIGTERM)
        end = time.monotonic() + STOP_LIMIT
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, end - time.monotonic()))
            # The remaining processes of its group had enough time.
            _signal_group(process, signal.SIGKILL)
            process.wait()
        self.processes.clear()
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None

    def _wait_until_healthy(self) -> None:
        end = time.monotonic() + START_LIMIT
        sick: list[str] = list(COMPONENTS)
        while time.monotonic() < end:
            for component, process in self.processes.items():
                if process.poll() is not None:
                    raise AirflowError(
                        f"airflow {component} ended with {process.returncode}:\n"
                        f"{self._tail(component)}"
                    )
            sick = self._sick()
            if not sick:
                return
            time.sleep(0.5)
        tails = "\n".join(f"--- {name}\n{self._tail(name)}" for name in COMPONENTS)
        raise AirflowError(
            f"Airflow is not healthy after {START_LIMIT:.0f} s: {sick}\n{tails}"
        )

    def _sick(self) -> list[str]:
        try:
            answer = requests.get(f"{self.url}/api/v2/monitor/health", timeout=10)
            answer.raise_for_status()
            health = answer.json()
            # What tasks talk to is made on its first request, which takes seconds.
            requests.get(f"{self.url}/execution/health", timeout=START_LIMIT)
        except (requests.RequestException, ValueError):
            return ["api-server"]
        parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return [part for part in parts if health[part]["status"] != "healthy"]

    def _tail(self, component: str, lines: int = 30) -> str:
        path = self.log_of(component)
        if not path.exists():
            return "(no output)"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])

    def _environment(self) -> dict[str, str]:
        connections = {
            f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(fields)
            for conn_id, fields in self.connections.items()
        }
        return {**connections, **self._settings}

    def _make_settings(self) -> dict[str, str]:
        database = self.database or f"sqlite:///{self.home}/airflow.db"
        mine = {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": str(self.parallelism),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        # No setting of another Airflow on this machine may have an effect, nor the
        # tracer that measures test coverage, as it slows every process down.
        alien = ("AIRFLOW", "COVERAGE_PROCESS")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(alien)}
        return {**kept, **mine, **self.environment}


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    # No such group: all its processes have ended.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
