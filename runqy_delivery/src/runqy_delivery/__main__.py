# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m runqy_delivery run``: run task code once, and show what it delivers."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runqy_delivery.local_run import process, report
from runqy_delivery.local_run.errors import NoResponse, WrongUsage
from runqy_delivery.local_run.receiver import LocalReceiver
from runqy_delivery.wire import FAILED, Delivery

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Exit statuses of the command.
OK, FAILURE, WRONG_USAGE = 0, 1, 2

DELIVERY_ID = "local-run"

#: Seconds that starting and running the task code may take together.
TIMEOUT, MAX_TIMEOUT = 600.0, 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status.

    It is 0 if the job completed, 1 if it failed or did not answer, and 2 if
    the command cannot be run.
    """
    options = _parser().parse_args(arguments)
    try:
        code = _path_of_code(options.code)
        return _run(code, _read_payload(options.payload), options.timeout)
    except WrongUsage as error:
        sys.stderr.write(f"{error}\n")
        return WRONG_USAGE
    except KeyboardInterrupt:
        return FAILURE


def _run(code: Path, payload: dict[str, Any], timeout: float) -> int:
    receiver = LocalReceiver(
        DELIVERY_ID, lambda delivery: _show(report.progress_line(delivery))
    )
    response: dict[str, Any] | None = None
    with receiver.listening() as request, process.running(code, timeout) as task:
        task.wait_until_ready()
        job = {
            "task_id": DELIVERY_ID,
            "type": "task",
            "payload": {**payload, **request.to_fields()},
            "retry_count": 0,
            "max_retry": 0,
            "queue": "local",
        }
        try:
            response = task.run_job(job)
        except NoResponse as error:
            sys.stderr.write(f"{error}\n")
    return _report(receiver, response)


def _report(receiver: LocalReceiver, response: dict[str, Any] | None) -> int:
    """Show how the job ended, and return the exit status."""
    final = receiver.final
    for refusal in receiver.refused:
        _show(f"refused delivery: {refusal}")
    if final is not None:
        _show(report.describe_delivery(final))
    elif response is not None:
        _show(report.NO_DELIVERY)
    if response is None:
        return FAILURE
    _show(report.describe_response(response))
    return FAILURE if _has_failed(final, response) else OK


def _has_failed(final: Delivery | None, response: dict[str, Any]) -> bool:
    if response.get("error"):
        return True
    if final is not None:
        return final.status == FAILED
    # Without a delivery, only a returned value could ever reach Airflow.
    return response.get("result") is None


def _show(text: str) -> None:
    # What the terminal cannot show must not end the command.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
    sys.stdout.flush()


def _path_of_code(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise WrongUsage(f"{name} is not a file. Give the path of the task's main.py.")
    return path.resolve()


def _read_payload(name: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    except OSError as error:
        raise WrongUsage(
            f"The payload cannot be read: {error}. Give the path of a JSON file, or - "
            "for stdin."
        ) from error
    except UnicodeDecodeError as error:
        raise WrongUsage(f"The payload {name} is not UTF-8 text: {error}.") from error
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WrongUsage(f"The payload {name} is not valid JSON: {error}.") from error
    if not isinstance(payload, dict):
        raise WrongUsage(
            f"The payload {name} is not a JSON object. Write what the DAG passes as "
            'payload, such as {"input": "a.wav"}.'
        )
    return payload


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds from 0 to {MAX_TIMEOUT:g}."
        )
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runqy_delivery")
    commands = parser.add_subparsers(required=True, metavar="run")
    run = commands.add_parser(
        "run",
        help="run task code once, without runqy, and show what it delivers",
        description="Runs task code once, without runqy and Airflow, and shows what it "
        "delivers to a webhook. Exit status: 0 completed, 1 failed, 2 wrong usage.",
    )
    run.add_argument("code", metavar="main.py", help="the task code")
    run.add_argument(
        "payload", metavar="payload.json", help="the payload as JSON; - reads stdin"
    )
    run.add_argument(
        "--timeout",
        type=_seconds,
        default=TIMEOUT,
        metavar="SECONDS",
        help="how long the code may take, in seconds (default: %(default)g)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
