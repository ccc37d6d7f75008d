# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver a result or a failure to the sinks that a delivery request names.

The sink in the request's field ``sink`` gets the result. The other sinks of the request
get a notification that says where the result is, after it was stored.

A sink of another package is a function under an entry point of the group
``runqy_delivery.sinks``, with the name that the Airflow side writes into ``sink``. It
is called with the request and the content to store.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable

from runqy_delivery._retry import retry_call
from runqy_delivery.errors import (
    DeliveryError,
    DeliveryImpossible,
    DeliveryUndeliverable,
    ResultRefused,
)
from runqy_delivery.result import (
    JSON_TYPE,
    Content,
    delivery_of,
    message_of,
    short_failure,
    value_of,
    with_log,
)
from runqy_delivery.sinks import amqp, object_store, sql, webhook
from runqy_delivery.wire import COMPLETED, FAILED, Delivery, DeliveryRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from importlib.metadata import EntryPoint

    #: Stores a content where a request says; see ``docs/how-to/add-a-sink.md``.
    Deliver = Callable[[DeliveryRequest, Content], object]

log = logging.getLogger("runqy_delivery")

#: A webhook for failures only, used if the request has no other webhook.
FAILURE_CHANNEL = "failure channel"

#: The sinks of this package, as a request names them.
OWN_SINKS = {"redis_storage", "webhook", "amqp", "sql", *object_store.MAX_PUT_BYTES}

#: Entry points of this group deliver to the sinks of other packages, by their names.
GROUP = "runqy_delivery.sinks"


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
        _deliver_by_package(request, content)
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
    if request.sink not in OWN_SINKS:
        sinks.insert(0, request.sink)
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


def _deliver_by_package(request: DeliveryRequest, content: Content) -> None:
    """Deliver by the function that another package registers for the sink.

    Raises:
        ResultRefused: No package does, or it refuses the content.
        DeliveryImpossible: The function cannot be imported, or fails.
        DeliveryUndeliverable: It could not connect within the retry budget.
    """
    points = [point for point in _entry_points() if point.name == request.sink]
    if not points:
        raise ResultRefused(
            f"runqy-delivery does not know the sink {request.sink!r}, and no package "
            f"that is installed here has an entry point {request.sink!r} in the group "
            f"{GROUP!r}. Add the package of that sink to the requirements.txt of the "
            "task code, or update runqy-delivery there."
        )
    operation = f"Delivering to the sink {request.sink!r} by {points[0].value}"
    try:
        deliver: Deliver = points[0].load()
        retry_call(
            operation,
            lambda: deliver(request, content),
            retryable=(ConnectionError, TimeoutError),
        )
    except DeliveryError:
        raise
    except Exception as error:
        # Whatever the package's libraries raise: Airflow must hear of it.
        raise DeliveryImpossible(
            f"{operation} failed: {type(error).__name__}: {error}. See the traceback, "
            "and the documentation of that package."
        ) from error


def _entry_points() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow, rarely used

    if sys.version_info >= (3, 10):
        return entry_points(group=GROUP)
    return entry_points().get(GROUP, ())


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
        elif sink not in OWN_SINKS:
            _deliver_by_package(request, Content(JSON_TYPE, len(body), data=body))
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
