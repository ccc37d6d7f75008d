# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Describe an error of task code as a failure, in a bounded size."""

from __future__ import annotations

import traceback

from runqy_delivery.log_tail import MAX_BYTES, LogTail
from runqy_delivery.wire import FAILED, Delivery, JobError

#: The longest traceback and error message that are sent, in characters. Longer ones
#: lose their middle, so that a failure always fits into its sink.
MAX_TRACEBACK, MAX_MESSAGE = 20_000, 10_000

#: How much of a failed command's output is looked at, from its end.
MAX_OUTPUT = 4 * MAX_BYTES


def failure_of(
    delivery_id: str, error: BaseException, log: str | None = None, hint: str = ""
) -> Delivery:
    """Return the failure that reports an error.

    Args:
        delivery_id: Id of the delivery.
        error: The error.
        log: The last lines of the log; None without one.
        hint: Text to append to the error's message.
    """
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    message = f"{_message_of(error)} {hint}".strip()
    return Delivery(
        delivery_id,
        status=FAILED,
        error=JobError(
            message=_truncate_middle(message, MAX_MESSAGE),
            type=type(error).__name__,
            traceback=_truncate_middle(lines, MAX_TRACEBACK),
        ),
        log=log or None,
    )


def note_output(error: BaseException, tail: LogTail) -> None:
    """Add to the log what a failed command wrote, if an error has it.

    Such an error, like ``subprocess.CalledProcessError``, has attributes ``stdout`` and
    ``stderr``, which its message leaves out. It may be the cause of the error.

    Args:
        error: The error that the handler raised.
        tail: The log.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        for name in ("stdout", "stderr"):
            text = _output_of(current, name)
            if text:
                tail.end_line()
                tail.write(f"{name} of the command that failed:\n{text}\n")
        seen.add(id(current))
        hidden = None if current.__suppress_context__ else current.__context__
        current = current.__cause__ or hidden


def _output_of(error: BaseException, name: str) -> str:
    """Return the last whole lines of an output that an error has; empty without one."""
    try:
        output = getattr(error, name, None)
    except Exception:  # noqa: BLE001 - a property of task code may raise anything
        return ""
    if not isinstance(output, (bytes, str)):
        return ""
    end = output[-MAX_OUTPUT:]
    text = end if isinstance(end, str) else end.decode("utf-8", "replace")
    text = text.replace("\r\n", "\n").rstrip()
    # A line without its beginning may have a part of a secret, which is not recognised.
    return text if len(end) == len(output) else text.partition("\n")[2]


def _message_of(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception as second:  # noqa: BLE001 - __str__ of task code may raise anything
        return f"(the error has no message: its __str__ raised {type(second).__name__})"


def _truncate_middle(text: str, max_length: int) -> str:
    if len(text) <= max_length:
        return text
    half = max_length // 2
    cut = len(text) - 2 * half
    return f"{text[:half]}\n... {cut} characters left out ...\n{text[-half:]}"
