# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The decorator that delivers what a handler returns."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import traceback
from typing import Any, Callable

from runqy_delivery.dispatch import deliver_failure, deliver_result
from runqy_delivery.errors import (
    DeliveryImpossible,
    DeliveryUndeliverable,
    ResultRefused,
)
from runqy_delivery.progress import reporting
from runqy_delivery.result import content_of
from runqy_delivery.wire import (
    FAILED,
    RESERVED_FIELDS,
    Delivery,
    DeliveryRequest,
    JobError,
)

log = logging.getLogger("runqy_delivery")

#: The longest traceback and message that are sent, in characters; more is cut out of
#: their middles, so that a failure never is too large for the place it goes to.
LONGEST_TRACEBACK, LONGEST_MESSAGE = 20_000, 10_000


def delivers(handle: Callable[..., Any]) -> Callable[..., Any]:
    """Deliver what ``handle`` returns to where the payload asks for it.

    Put it below ``@task``::

        @task
        @delivers
        def handle(payload):            # or handle(payload, ctx)
            return {"text": transcribe(payload["input"])}

    ``handle`` sees the payload as the DAG wrote it. It may be an ``async def``, which
    is run to its end, but no generator. It may return a JSON value,
    ``bytes``, a ``pathlib.Path``, or a ``Result``. What it raises is delivered as a
    failure and then swallowed, so that Airflow decides on the retry and not runqy;
    ``runqy_python.RetryableError`` is left to runqy. A payload without a delivery
    request passes through untouched.

    Raises:
        TypeError: ``handle`` is a generator: what it yields has no place to go.
        DeliveryUndeliverable: From the decorated function, when a delivery could not
            be made: runqy then retries the job.
    """
    if inspect.isgeneratorfunction(handle) or inspect.isasyncgenfunction(handle):
        name = getattr(handle, "__name__", "handle")
        raise TypeError(
            f"{name} yields, so it is a generator, and @delivers cannot deliver what "
            "one yields. Return one result; tell how far it is with "
            "runqy_delivery.progress()."
        )

    @functools.wraps(handle)
    def deliver(payload: Any, *context: Any) -> Any:
        request = DeliveryRequest.from_payload(payload)
        if request is None:
            return _call(handle, payload, context)
        own = {key: payload[key] for key in payload if key not in RESERVED_FIELDS}
        try:
            with reporting(request):
                returned = _call(handle, own, context)
            content = content_of(returned)
        # Whatever it is, Airflow is to hear of it; an exit would only end the process.
        except (Exception, SystemExit) as error:
            if _is_retryable(error):
                raise
            log.exception("handle failed; delivering the failure")
            return deliver_failure(request, _failure(request, error))
        try:
            return deliver_result(request, content)
        except ResultRefused as error:
            log.error("%s", error)  # noqa: TRY400 - the words are enough here
            return deliver_failure(request, _failure(request, error))
        except DeliveryImpossible as error:
            log.error("%s", error)  # noqa: TRY400 - the words are enough here
            try:
                return deliver_failure(request, _failure(request, error))
            except DeliveryUndeliverable as trouble:
                log.error("The failure was not taken either: %s", trouble)  # noqa: TRY400 - same
                raise error  # noqa: B904 - the reason of both; its own cause stays

    return deliver


def _call(handle: Callable[..., Any], payload: Any, context: tuple[Any, ...]) -> Any:
    returned = handle(payload, *context)
    if inspect.iscoroutine(returned):
        return asyncio.run(returned)
    return returned


def _is_retryable(error: BaseException) -> bool:
    """True for runqy_python's RetryableError, which we do not import."""
    return any(
        kind.__name__ == "RetryableError"
        and kind.__module__.partition(".")[0] == "runqy_python"
        for kind in type(error).__mro__
    )


def _failure(request: DeliveryRequest, error: BaseException) -> Delivery:
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return Delivery(
        request.delivery_id,
        status=FAILED,
        error=JobError(
            message=_shortened(_words(error), LONGEST_MESSAGE),
            type=type(error).__name__,
            traceback=_shortened(lines, LONGEST_TRACEBACK),
        ),
    )


def _words(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception as trouble:  # noqa: BLE001 - an error that cannot say itself
        return f"(the error's own text failed with {type(trouble).__name__})"


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters ...\n{text[-half:]}"
