# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m runqy_sandbox``: run a sandbox until it is interrupted."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runqy_sandbox.echo import ECHO_QUEUES
from runqy_sandbox.errors import SandboxError
from runqy_sandbox.queues import read_queues
from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGNALS = (signal.SIGINT, signal.SIGTERM)
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
        with Sandbox(_queues(options.queues, dict(options.task_code))) as sandbox:
            describe = _as_json if options.json else _as_text
            sys.stdout.write(describe(sandbox) + "\n")
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


def _as_json(sandbox: Sandbox) -> str:
    return json.dumps(
        {
            "pid": os.getpid(),
            "server_url": sandbox.server_url,
            "redis_url": sandbox.redis_url,
            "s3_url": sandbox.s3_url,
            "admin_key": sandbox.admin_key,
            "client_key": sandbox.client_key,
            "worker_key": sandbox.worker_key,
            "connections": sandbox.connections(sink="s3://results"),
        }
    )


def _as_text(sandbox: Sandbox) -> str:
    exports = (
        f"export AIRFLOW_CONN_{name.upper()}={shlex.quote(json.dumps(connection))}"
        for name, connection in sandbox.connections(sink="s3://results").items()
    )
    return "\n".join(
        [
            NOTICE,
            "",
            f"runqy server  {sandbox.server_url}",
            f"Redis         {sandbox.redis_url}",
            f"S3            {sandbox.s3_url}",
            f"admin key     {sandbox.admin_key}",
            f"client key    {sandbox.client_key}",
            f"worker key    {sandbox.worker_key}",
            "",
            *exports,
            "",
            "Press Ctrl-C to stop.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
