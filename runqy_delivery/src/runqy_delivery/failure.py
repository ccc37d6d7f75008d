# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Describe an error of task code as a failure, in a bounded size."""

from __future__ import annotations

import traceback

from runqy_delivery.wire import FAILED, Delivery, JobError

#: The longest traceback and error message that are sent, in characters. Longer ones
#: lose their middle, so that a failure always fits into its sink.
MAX_TRACEBACK, MAX_MESSAGE = 20_000, 10_000


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
