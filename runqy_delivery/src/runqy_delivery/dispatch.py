# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver a result or a failure to the sinks that a delivery request names.

The sink in the request's field ``sink`` gets the result. The other sinks of the request
get a notification that says where the result is, once it is there.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runqy_delivery.errors import (
    DeliveryError,
    DeliveryImpossible,
    DeliveryUndeliverable,
    ResultRefused,
)
from runqy_delivery.result import JSON_TYPE, Content
from runqy_delivery.serialize import (
    delivery_of,
    message_of,
    short_failure,
    value_of,
    with_log,
)
from runqy_delivery.sinks import amqp, object_store, sql, webhook
from runqy_delivery.wire import COMPLETED, FAILED, Delivery, DeliveryRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger("runqy_delivery")

#: A webhook for failures only, used where the request has no other webhook.
FAILURE_CHANNEL = "failure channel"


def deliver_result(
    request: DeliveryRequest, content: Content, log_text: str | None = None
) -> Any:
    """Deliver a result to the request's sink, and notify the other sinks.

    Args:
        request: The delivery request.
        content: The result.
        log_text: The last lines of the log, for the messages about the result; None to
            send none.

    Returns:
        What the task code must return to runqy: None, except for ``redis_storage``.

    Raises:
        ResultRefused: The sink does not accept this result.
        DeliveryImpossible: The configuration must be changed first.
        DeliveryUndeliverable: The sink could not be reached within the retry budget.
    """
    if request.sink == "redis_storage":
        return _value_for_runqy(request, content)
    if request.sink == "webhook":
        _post(request, content, log_text)
    elif request.sink == "amqp":
        _publish(request, content, log_text)
    elif request.sink == "sql":
        _write(request, content)
    elif request.sink in object_store.MAX_PUT_BYTES:
        object_store.put(request, content)
    else:
        raise ResultRefused(
            f"This version of runqy-delivery does not know the sink {request.sink!r}. "
            "Update runqy-delivery in the requirements.txt of the task code."
        )
    _notify_others(request, content, log_text)
    return None


def deliver_failure(request: DeliveryRequest, failure: Delivery) -> Any:
    """Deliver a failure to every sink that the request names.

    Returns:
        What the task code must return to runqy: None, except for ``redis_storage``.

    Raises:
        DeliveryUndeliverable: No sink took the failure.
    """
    if request.sink == "redis_storage":
        return json.loads(message_of(failure, request.max_bytes))
    sinks = _notifiable(request)
    if request.failure_url is not None and request.webhook_url is None:
        sinks.append(FAILURE_CHANNEL)
    if not sinks:
        _put_failure(request, failure)
        return None
    errors = [error for sink in sinks if (error := _notify(request, sink, failure))]
    if len(errors) == len(sinks):
        raise DeliveryUndeliverable(" ".join(map(str, errors)))
    return None


def _value_for_runqy(request: DeliveryRequest, content: Content) -> Any:
    """Return the value that runqy's worker stores in Redis."""
    # runqy's API returns only JSON objects unchanged, so other values get an envelope.
    is_object = content.is_json and (content.data or b"")[:1] == b"{"
    serialize = value_of if is_object else delivery_of
    value = serialize(request.delivery_id, content, request.max_bytes, "runqy's worker")
    return json.loads(value)


def _post(request: DeliveryRequest, content: Content, log_text: str | None) -> None:
    delivery_id, max_bytes = request.delivery_id, request.max_bytes
    body = delivery_of(delivery_id, content, max_bytes, "the webhook")
    body = with_log(body, log_text, max_bytes)
    webhook.post(_required(request, "webhook_url"), delivery_id, body)


def _publish(request: DeliveryRequest, content: Content, log_text: str | None) -> None:
    delivery_id, max_bytes = request.delivery_id, request.max_bytes
    body = delivery_of(delivery_id, content, max_bytes, "the message queue")
    body = with_log(body, log_text, max_bytes)
    amqp.publish(_required(request, "amqp"), delivery_id, body)


def _write(request: DeliveryRequest, content: Content) -> None:
    delivery_id = request.delivery_id
    value = value_of(delivery_id, content, request.max_bytes, "the table")
    sql.write(_required(request, "table"), delivery_id, COMPLETED, value)


def _put_failure(request: DeliveryRequest, failure: Delivery) -> None:
    body = message_of(failure)
    content = Content(JSON_TYPE, len(body), data=body)
    try:
        object_store.put(request, content, failed=True)
    except ResultRefused as error:
        raise DeliveryUndeliverable(str(error)) from error


def _notify_others(
    request: DeliveryRequest, content: Content, log_text: str | None
) -> None:
    """Notify all sinks but the one that has the result.

    An error is only logged: Airflow finds the result without a notification, later.
    """
    if request.url is None:
        return  # a notification without a URL would be read as the result null
    notification = Delivery(
        request.delivery_id,
        result_url=request.url,
        content_type=content.content_type,
        size=content.size,
        metadata=content.metadata,
        log=log_text,
    )
    for sink in _notifiable(request):
        if sink != request.sink:
            _notify(request, sink, notification)


def _notifiable(request: DeliveryRequest) -> list[str]:
    """Return the sinks in the request that take messages: all but object stores."""
    fields = {
        "sql": request.table,
        "amqp": request.amqp,
        "webhook": request.webhook_url,
    }
    return [sink for sink, value in fields.items() if value is not None]


def _notify(
    request: DeliveryRequest, sink: str, notification: Delivery
) -> Exception | None:
    """Send a notification or a failure to one sink; return the error, if any."""
    body = message_of(notification, request.max_bytes)
    try:
        if sink in ("webhook", FAILURE_CHANNEL):
            url = str(request.webhook_url or request.failure_url)
            is_failure = notification.status == FAILED
            webhook.post(url, request.delivery_id, body, allow_unsigned=is_failure)
        elif sink == "amqp":
            amqp.publish(request.amqp or {}, request.delivery_id, body)
        else:
            _notify_table(request, notification)
    except DeliveryError as error:
        log.warning("Could not notify the %s: %s", sink, error)
        return error
    return None


def _notify_table(request: DeliveryRequest, notification: Delivery) -> None:
    """Write a notification or a failure to the row of the delivery.

    A failure that the column does not accept, because it is too long or has characters
    that the database does not know, is shortened: it must reach Airflow, or runqy would
    run the job again and again.
    """
    table, status = request.table or {}, notification.status
    without_log = replace(notification, log=None).to_json()
    if status != FAILED:
        sql.write(table, request.delivery_id, status, without_log)
        return
    # Without a log, the first two are the same.
    bodies = dict.fromkeys(
        (message_of(notification), without_log, short_failure(notification))
    )
    _write_first_accepted(table, request.delivery_id, list(bodies))


def _write_first_accepted(
    table: Mapping[str, Any], delivery_id: str, bodies: Sequence[bytes]
) -> None:
    """Write a failure to a row, in the first form that its column accepts.

    Args:
        table: Names of the table and its columns.
        delivery_id: Id of the delivery.
        bodies: The forms, the longest first.

    Raises:
        ResultRefused: The column accepts none of them.
    """
    body, *shorter = bodies
    try:
        sql.write(table, delivery_id, FAILED, body)
    except ResultRefused as error:
        if not shorter:
            raise
        log.warning("%s Retrying with a shorter message.", error)
        _write_first_accepted(table, delivery_id, shorter)


def _required(request: DeliveryRequest, name: str) -> Any:
    """Return a field that the request's sink needs.

    Raises:
        DeliveryImpossible: The request has no such field.
    """
    value = getattr(request, name)
    if value is None:
        raise DeliveryImpossible(
            f"The delivery request has no {name}, which the sink {request.sink!r} "
            "needs. Check that nothing changed the request after the Airflow provider "
            "wrote it."
        )
    return value
