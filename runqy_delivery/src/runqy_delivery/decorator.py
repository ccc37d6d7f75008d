# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The decorator that delivers what a handler returns or raises."""

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
from runqy_delivery.result import Content, content_of
from runqy_delivery.wire import (
    FAILED,
    RESERVED_FIELDS,
    Delivery,
    DeliveryRequest,
    JobError,
)

log = logging.getLogger("runqy_delivery")

#: The longest traceback and error message that are sent, in characters. Longer ones
#: lose their middle, so that a failure always fits into its sink.
MAX_TRACEBACK, MAX_MESSAGE = 20_000, 10_000


def delivers(handle: Callable[..., Any]) -> Callable[..., Any]:
    """Deliver what ``handle`` returns to the sink that the payload names.

    Put it below ``@task``::

        @task
        @delivers
        def handle(payload):            # or handle(payload, ctx)
            return {"text": transcribe(payload["input"])}

    ``handle`` gets the payload as the DAG wrote it, without the delivery request. It
    may be an ``async def`` function, but not a generator function. It may return a JSON
    value, ``bytes``, a ``pathlib.Path`` or a ``Result``. An exception is delivered as a
    failure and not raised, so that Airflow decides about a retry, not runqy;
    ``runqy_python.RetryableError`` is raised to runqy. A payload without a delivery
    request is passed to ``handle`` unchanged, and its result returned to runqy.

    Raises:
        TypeError: ``handle`` is a generator function.
        DeliveryUndeliverable: From the decorated function, where a delivery could not
            be made: runqy then retries the job.
        BadDelivery: From the decorated function, where the delivery request in the
            payload cannot be read.
    """
    if inspect.isgeneratorfunction(handle) or inspect.isasyncgenfunction(handle):
        name = getattr(handle, "__name__", "handle")
        raise TypeError(
            f"{name} is a generator function, and @delivers can deliver only one "
            "result. Return one result; report progress with runqy_delivery.progress()."
        )

    @functools.wraps(handle)
    def deliver(payload: Any, *context: Any) -> Any:
        request = DeliveryRequest.from_payload(payload)
        if request is None:
            return _call(handle, payload, context)
        own_fields = {k: v for k, v in payload.items() if k not in RESERVED_FIELDS}
        try:
            with reporting(request):
                returned = _call(handle, own_fields, context)
            content = content_of(returned)
        # SystemExit too: it would end the process before Airflow knows of the failure.
        except (Exception, SystemExit) as error:
            if _is_retryable(error):
                raise
            log.exception("handle failed; delivering the failure")
            return deliver_failure(request, _failure(request, error))
        return _deliver(request, content)

    return deliver


def _call(handle: Callable[..., Any], payload: Any, context: tuple[Any, ...]) -> Any:
    returned = handle(payload, *context)
    if inspect.iscoroutine(returned):
        return asyncio.run(returned)
    return returned


def _is_retryable(error: BaseException) -> bool:
    """True for runqy_python's RetryableError, which is recognised by its name.

    This package does not depend on runqy_python, so it cannot import the class.
    """
    return any(
        cls.__name__ == "RetryableError"
        and cls.__module__.partition(".")[0] == "runqy_python"
        for cls in type(error).__mro__
    )


def _deliver(request: DeliveryRequest, content: Content) -> Any:
    """Deliver a result; where that can never succeed, deliver the error instead."""
    try:
        return deliver_result(request, content)
    except ResultRefused as error:
        log.error("%s", error)  # noqa: TRY400 - the message is enough
        return deliver_failure(request, _failure(request, error))
    except DeliveryImpossible as error:
        log.error("%s", error)  # noqa: TRY400 - the message is enough
        try:
            return deliver_failure(request, _failure(request, error))
        except DeliveryUndeliverable as second:
            log.error("The failure could not be delivered either: %s", second)  # noqa: TRY400 - the message is enough
            raise error  # noqa: B904 - the first error is the reason of the second


def _failure(request: DeliveryRequest, error: BaseException) -> Delivery:
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return Delivery(
        request.delivery_id,
        status=FAILED,
        error=JobError(
            message=_truncate_middle(_message_of(error), MAX_MESSAGE),
            type=type(error).__name__,
            traceback=_truncate_middle(lines, MAX_TRACEBACK),
        ),
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
