# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m runqy_sandbox``: run a sandbox until it is interrupted."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runqy_sandbox.echo import ECHO_QUEUES
from runqy_sandbox.errors import SandboxError
from runqy_sandbox.queues import read_queues
from runqy_sandbox.sandbox import PORTS, Sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: The receiver of an Airflow on this machine, on Airflow's own port.
CALLBACK_URL = "http://127.0.0.1:8080/runqy"

NOTICE = (
    "This is a stand-in for demos and tests. It behaves like a runqy server and "
    "worker, but it is not runqy."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sandbox, print its addresses and keys, and return the exit status."""
    options = _parser().parse_args(arguments)
    for number in SIGNALS:
        # SIGINT, too: a shell starts background jobs with it ignored.
        signal.signal(number, _interrupt)
    try:
        queues = _queues(options.queues, dict(options.task_code))
        ports = {name: getattr(options, f"{name}_port") for name in PORTS}
        with Sandbox(queues, ports=ports) as sandbox:
            connections = sandbox.connections(
                options.callback_url, secrets.token_hex(32), sink="s3://results"
            )
            describe = _as_json if options.json else _as_text
            sys.stdout.write(describe(sandbox, connections) + "\n")
            sys.stdout.flush()
            while True:
                signal.pause()
    except KeyboardInterrupt:
        return 0
    except SandboxError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _interrupt(*_: object) -> None:
    # A second signal must not interrupt the cleanup.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m runqy_sandbox",
        description=f"Start Redis, S3, and a runqy server and worker. {NOTICE}",
    )
    parser.add_argument(
        "--queues", metavar="FILE", type=Path, help="a YAML file of queues for runqy"
    )
    parser.add_argument(
        "--task-code",
        metavar="NAME=DIR",
        type=_name_and_directory,
        action="append",
        default=[],
        help="serve the queue NAME with the main.py in DIR; may be repeated",
    )
    parser.add_argument(
        "--callback-url",
        metavar="URL",
        default=CALLBACK_URL,
        help="the receiver's URL, for webhooks (default: %(default)s)",
    )
    for name in PORTS:
        parser.add_argument(
            f"--{name}-port", metavar="PORT", type=int, help="default: a free port"
        )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _name_and_directory(text: str) -> tuple[str, Path]:
    name, separator, directory = text.partition("=")
    if not (name and separator and directory):
        raise argparse.ArgumentTypeError(f"expected NAME=DIR, not '{text}'")
    return name, Path(directory)


def _queues(file: Path | None, task_code: dict[str, Path]) -> dict[str, Any]:
    """Return the queues of a file, with task code added or replaced by queue name."""
    if not file and not task_code:
        return ECHO_QUEUES
    config = read_queues(file) if file else {"queues": {}}
    for name, directory in task_code.items():
        queue = config["queues"].setdefault(name, {})
        queue.setdefault("deployment", {})["task_code"] = str(directory.resolve())
    return config


def _as_json(sandbox: Sandbox, connections: Mapping[str, Any]) -> str:
    return json.dumps(
        {
            "pid": os.getpid(),
            "server_url": sandbox.server_url,
            "redis_url": sandbox.redis_url,
            "s3_url": sandbox.s3_url,
            "admin_key": sandbox.admin_key,
            "client_key": sandbox.client_key,
            "worker_key": sandbox.worker_key,
            "worker_log": str(sandbox.worker.log),
            "connections": connections,
        }
    )


def _as_text(sandbox: Sandbox, connections: Mapping[str, Any]) -> str:
    exports = (
        f"export AIRFLOW_CONN_{name.upper()}={shlex.quote(json.dumps(connection))}"
        for name, connection in connections.items()
    )
    return "\n".join(
        [
            NOTICE,
            "",
            f"runqy server  {sandbox.server_url}",
            f"Redis         {sandbox.redis_url}",
            f"S3            {sandbox.s3_url}  (bucket: results)",
            f"admin key     {sandbox.admin_key}",
            f"client key    {sandbox.client_key}",
            f"worker key    {sandbox.worker_key}",
            f"worker's log  {sandbox.worker.log}",
            "",
            "Airflow's connections, to paste before Airflow is started:",
            "",
            *exports,
            "",
            "Press Ctrl-C to stop.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
