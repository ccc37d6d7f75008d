# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The decorator that delivers what a handler returns or raises."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any, Callable, overload

from runqy_delivery.dispatch import deliver_failure, deliver_result
from runqy_delivery.errors import (
    DeliveryImpossible,
    DeliveryUndeliverable,
    ResultNotEncodable,
    ResultRefused,
)
from runqy_delivery.failure import failure_of, note_output
from runqy_delivery.json_encoder import JsonEncoder
from runqy_delivery.log_capture import capturing
from runqy_delivery.log_tail import LogTail
from runqy_delivery.progress import reporting
from runqy_delivery.result import content_of
from runqy_delivery.secret_mask import SecretMask
from runqy_delivery.unencodable import keep_repr
from runqy_delivery.wire import RESERVED_FIELDS, DeliveryRequest

if TYPE_CHECKING:
    from runqy_delivery.result import Content
    from runqy_delivery.wire import Delivery

log = logging.getLogger("runqy_delivery")

Handler = Callable[..., Any]

#: When the end of the log is delivered.
FAILURES, ALWAYS, NEVER = "failures", "always", "never"
LOG_CHOICES = (FAILURES, ALWAYS, NEVER)


@overload
def delivers(handle: Handler) -> Handler: ...


@overload
def delivers(
    *,
    encoder: Callable[[Any], Any] | None = None,
    nan: str = "refuse",
    log: str = FAILURES,
) -> Callable[[Handler], Handler]: ...


def delivers(
    handle: Handler | None = None,
    *,
    encoder: Callable[[Any], Any] | None = None,
    nan: str = "refuse",
    log: str = FAILURES,
) -> Any:
    """Deliver what ``handle`` returns to the sink that the payload names.

    Put it below ``@task``::

        @task
        @delivers
        def handle(payload):            # or handle(payload, ctx)
            return {"text": transcribe(payload["input"])}

    ``handle`` gets the payload as the DAG wrote it, without the delivery request. It
    may be an ``async def`` function, but not a generator function. It may return a JSON
    value, ``bytes``, a ``pathlib.Path`` or a ``Result``. Other types in a JSON value,
    such as numpy arrays and dates, are written as ``default_encoder.encode_default``
    describes.

    An exception is delivered as a failure and not raised, so that Airflow decides about
    a retry, not runqy; ``runqy_python.RetryableError`` is raised to runqy. A payload
    without a delivery request is passed to ``handle`` unchanged, and its result
    returned to runqy.

    A failure has the last lines of what ``handle`` logged and wrote to ``sys.stderr``:
    at most 200 lines and 16 KiB. What child processes and C code write to stderr is
    only in the worker's own log. Run a command with ``subprocess.run(command,
    check=True, capture_output=True)``: if it fails, the failure has the end of its
    output, too.

    Args:
        handle: The handler.
        encoder: Called with each value that JSON does not have, as ``json.dumps`` calls
            its ``default``: it returns a value to write instead, or raises TypeError.
        nan: ``refuse`` delivers a failure if the result has a NaN or an infinity,
            because JSON has no such numbers; ``null`` writes null for them.
        log: When the end of the log is delivered: with ``failures``, ``always`` or
            ``never``. Secrets of the delivery request are hidden in it. What task code
            itself logs is sent as it is.

    Raises:
        TypeError: ``handle`` is a generator function, or ``encoder`` is no function.
        ValueError: ``nan`` or ``log`` is not one of the words above.
        DeliveryUndeliverable: From the decorated function, if a delivery could not
            be made: runqy then retries the job.
        BadDelivery: From the decorated function, if the delivery request in the
            payload cannot be read.
    """
    if log not in LOG_CHOICES:
        choices = ", ".join(map(repr, LOG_CHOICES))
        raise ValueError(f"log must be one of {choices}, not {log!r}.")
    json_encoder = JsonEncoder(encoder, nan)

    def decorate(handle: Handler) -> Handler:
        _refuse_generator(handle)

        @functools.wraps(handle)
        def deliver(payload: Any, *context: Any) -> Any:
            request = DeliveryRequest.from_payload(payload)
            if request is None:
                return _call(handle, payload, context)
            call = _Call(request, json_encoder, log)
            return call.run(handle, payload, context)

        return deliver

    return decorate if handle is None else decorate(handle)


class _Call:
    """One call of a handler, whose result or failure is delivered.

    Args:
        request: The delivery request.
        encoder: Writes the result as JSON.
        log_when: When the end of the log is delivered; one of LOG_CHOICES.
    """

    def __init__(
        self, request: DeliveryRequest, encoder: JsonEncoder, log_when: str
    ) -> None:
        self._request = request
        self._encoder = encoder
        self._log_when = log_when
        self._tail: LogTail | None = None
        if log_when != NEVER:
            self._tail = LogTail(SecretMask(request).hide_in)

    def run(self, handle: Handler, payload: Any, context: tuple[Any, ...]) -> Any:
        """Call the handler, deliver, and return what runqy gets.

        Raises:
            RetryableError: The handler raised it.
            DeliveryUndeliverable: The delivery could not be made.
        """
        own_fields = {k: v for k, v in payload.items() if k not in RESERVED_FIELDS}
        try:
            with reporting(self._request), capturing(self._tail):
                returned = _call(handle, own_fields, context)
                content = content_of(returned, self._encoder)
        except ResultNotEncodable as error:
            return self._report(error, keep_repr(self._request, error))
        # SystemExit too: it would end the process before Airflow knows of the failure.
        except (Exception, SystemExit) as error:
            if _is_retryable(error):
                raise
            log.exception("handle failed; delivering the failure")
            if self._tail is not None:
                note_output(error, self._tail)
            return deliver_failure(self._request, self._failure(error))
        return self._deliver(content)

    def _deliver(self, content: Content) -> Any:
        """Deliver a result; if that can never succeed, deliver the error instead."""
        log_text = self._log_text() if self._log_when == ALWAYS else None
        try:
            return deliver_result(self._request, content, log_text)
        except ResultRefused as error:
            return self._report(error)
        except DeliveryImpossible as error:
            try:
                return self._report(error)
            except DeliveryUndeliverable as second:
                log.error("The failure could not be delivered either: %s", second)  # noqa: TRY400 - the message is enough
                raise error  # noqa: B904 - the first error is the reason of the second

    def _report(self, error: Exception, hint: str = "") -> Any:
        """Log and deliver an error of this package, whose traceback says nothing."""
        log.error("%s %s", error, hint)
        return deliver_failure(self._request, self._failure(error, hint))

    def _failure(self, error: BaseException, hint: str = "") -> Delivery:
        delivery_id = self._request.delivery_id
        return failure_of(delivery_id, error, self._log_text(), hint)

    def _log_text(self) -> str | None:
        return None if self._tail is None else self._tail.text()


def _refuse_generator(handle: Handler) -> None:
    if inspect.isgeneratorfunction(handle) or inspect.isasyncgenfunction(handle):
        name = getattr(handle, "__name__", "handle")
        raise TypeError(
            f"{name} is a generator function, and @delivers can deliver only one "
            "result. Return one result; report progress with runqy_delivery.progress()."
        )


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
