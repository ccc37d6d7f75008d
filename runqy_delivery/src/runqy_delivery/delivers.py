# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The decorator that delivers what a handler returns."""

from __future__ import annotations

import functools
import logging
import traceback
from typing import Any, Callable

from runqy_delivery import object_store, webhook
from runqy_delivery.errors import DeliveryError, DeliveryUndeliverable, ResultRefused
from runqy_delivery.result import JSON_TYPE, Content, content_of
from runqy_delivery.wire import (
    FAILED,
    RESERVED_FIELDS,
    Delivery,
    DeliveryRequest,
    JobError,
)

log = logging.getLogger("runqy_delivery")

#: The longest traceback that is sent, in characters; its end says most.
LONGEST_TRACEBACK = 20_000


def delivers(handle: Callable[..., Any]) -> Callable[..., Any]:
    """Deliver what ``handle`` returns to where the payload asks for it.

    Put it below ``@task``::

        @task
        @delivers
        def handle(payload):            # or handle(payload, ctx)
            return {"text": transcribe(payload["input"])}

    ``handle`` sees the payload as the DAG wrote it. It may return a JSON value,
    ``bytes``, a ``pathlib.Path``, or a ``Result``. What it raises is delivered as a
    failure and then swallowed, so that Airflow decides on the retry and not runqy;
    ``runqy_python.RetryableError`` is left to runqy. A payload without a delivery
    request passes through untouched.

    Raises:
        DeliveryUndeliverable: From the decorated function, when a delivery could not
            be made: runqy then retries the job.
    """

    @functools.wraps(handle)
    def deliver(payload: Any, *context: Any) -> Any:
        request = DeliveryRequest.from_payload(payload)
        if request is None:
            return handle(payload, *context)
        own = {key: payload[key] for key in payload if key not in RESERVED_FIELDS}
        try:
            returned = handle(own, *context)
            content = content_of(returned)
        except Exception as error:  # whatever it is, Airflow is to hear of it
            if _is_retryable(error):
                raise
            log.exception("handle failed; delivering the failure")
            _deliver_failure(request, error)
            return None
        try:
            _deliver_content(request, content)
        except ResultRefused as error:
            log.error("%s", error)  # noqa: TRY400 - the words are enough here
            _deliver_failure(request, error)
        return None

    return deliver


def _is_retryable(error: BaseException) -> bool:
    """True for runqy_python's RetryableError, which we do not import."""
    return any(
        kind.__name__ == "RetryableError"
        and kind.__module__.partition(".")[0] == "runqy_python"
        for kind in type(error).__mro__
    )


def _deliver_content(request: DeliveryRequest, content: Content) -> None:
    if request.sink == "s3":
        _deliver_object(request, content)
    elif request.sink == "webhook":
        body = webhook.delivery_with_content(
            request.delivery_id, content, request.max_bytes
        )
        webhook.post(_webhook_url(request), request.delivery_id, body)
    else:
        raise ResultRefused(
            f"This runqy-delivery does not know the sink {request.sink!r}: update it "
            "in the requirements.txt of the task code."
        )


def _deliver_object(request: DeliveryRequest, content: Content) -> None:
    bucket, key = _place(request.bucket, request.key)
    object_store.put(bucket, key, request.put_url, content)
    if request.webhook_url is None:
        return
    bell = Delivery(
        request.delivery_id,
        result_url=f"s3://{bucket}/{key}",
        content_type=content.content_type,
        size=content.size,
        metadata=content.metadata,
    )
    try:
        webhook.post(request.webhook_url, request.delivery_id, bell.to_json())
    except DeliveryError as error:
        # The object is there and will be found; the webhook only says so earlier.
        log.warning("The result is stored; its webhook was not taken: %s", error)


def _deliver_failure(request: DeliveryRequest, error: BaseException) -> None:
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    failure = Delivery(
        request.delivery_id,
        status=FAILED,
        error=JobError(
            message=str(error) or type(error).__name__,
            type=type(error).__name__,
            traceback=lines[-LONGEST_TRACEBACK:],
        ),
    )
    try:
        if request.webhook_url is not None:
            webhook.post(request.webhook_url, request.delivery_id, failure.to_json())
        else:
            _store_failure(request, failure)
    except ResultRefused as refusal:
        raise DeliveryUndeliverable(str(refusal)) from refusal


def _store_failure(request: DeliveryRequest, failure: Delivery) -> None:
    bucket, key = _place(request.bucket, request.failed_key)
    body = failure.to_json()
    content = Content(JSON_TYPE, len(body), data=body)
    object_store.put(bucket, key, request.failed_put_url, content)


def _webhook_url(request: DeliveryRequest) -> str:
    if request.webhook_url is None:
        raise DeliveryUndeliverable("The delivery request has no webhook_url.")
    return request.webhook_url


def _place(bucket: str | None, key: str | None) -> tuple[str, str]:
    if not bucket or not key:
        raise DeliveryUndeliverable(
            "The delivery request names no bucket and key to deliver to."
        )
    return bucket, key
