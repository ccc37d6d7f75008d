# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Bring a result, or a failure, to all the places that a request names.

One place holds the result: the request's ``sink``. The others are told where it is,
once it is there.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from runqy_delivery.errors import (
    DeliveryError,
    DeliveryImpossible,
    DeliveryUndeliverable,
    ResultRefused,
)
from runqy_delivery.result import JSON_TYPE, Content
from runqy_delivery.serialize import delivery_of, in_few_words, value_of
from runqy_delivery.sinks import amqp as broker
from runqy_delivery.sinks import object_store, webhook
from runqy_delivery.sinks import sql as database
from runqy_delivery.wire import COMPLETED, FAILED, Delivery, DeliveryRequest

log = logging.getLogger("runqy_delivery")

#: The channel that hears of failures only.
FAILURE_CHANNEL = "failure channel"


def deliver_result(request: DeliveryRequest, content: Content) -> Any:
    """Deliver what the handler returned.

    Returns:
        What the task code is to return to runqy: None, but for ``redis_storage``.

    Raises:
        ResultRefused: This result can never be delivered there.
        DeliveryImpossible: It can never be made as things are set up.
        DeliveryUndeliverable: Nobody took it.
    """
    delivery_id, max_bytes = request.delivery_id, request.max_bytes
    if request.sink == "redis_storage":
        # runqy's API garbles bare numbers and the like, so only objects stand bare.
        is_object = content.is_json and (content.data or b"")[:1] == b"{"
        write = value_of if is_object else delivery_of
        return json.loads(write(delivery_id, content, max_bytes, "runqy's worker"))
    if request.sink == "webhook":
        body = delivery_of(delivery_id, content, max_bytes, "the webhook")
        webhook.post(_required(request.webhook_url, "webhook_url"), delivery_id, body)
    elif request.sink == "amqp":
        body = delivery_of(delivery_id, content, max_bytes, "the message queue")
        broker.publish(_required(request.amqp, "amqp"), delivery_id, body)
    elif request.sink == "sql":
        value = value_of(delivery_id, content, max_bytes, "the table")
        table = _required(request.table, "table")
        database.write(table, delivery_id, COMPLETED, value)
    elif request.sink in object_store.LARGEST_PUT:
        object_store.put(request, content)
    else:
        raise ResultRefused(
            f"This runqy-delivery does not know the sink {request.sink!r}: update it "
            "in the requirements.txt of the task code."
        )
    _tell_others(request, content)
    return None


def deliver_failure(request: DeliveryRequest, failure: Delivery) -> Any:
    """Deliver a failure, everywhere that the request names.

    Returns:
        What the task code is to return to runqy.

    Raises:
        DeliveryUndeliverable: Nobody took it.
    """
    if request.sink == "redis_storage":
        return json.loads(failure.to_json())
    kinds = _tellable(request)
    if request.failure_url is not None and request.webhook_url is None:
        kinds.append(FAILURE_CHANNEL)
    if not kinds:
        body = failure.to_json()
        content = Content(JSON_TYPE, len(body), data=body)
        try:
            object_store.put(request, content, failed=True)
        except ResultRefused as refusal:
            raise DeliveryUndeliverable(str(refusal)) from refusal
        return None
    troubles = [trouble for kind in kinds if (trouble := _tell(request, kind, failure))]
    if len(troubles) == len(kinds):
        raise DeliveryUndeliverable(" ".join(map(str, troubles)))
    return None


def _tell_others(request: DeliveryRequest, content: Content) -> None:
    if request.url is None:
        return  # news without an address would read as a result that is null
    news = Delivery(
        request.delivery_id,
        result_url=request.url,
        content_type=content.content_type,
        size=content.size,
        metadata=content.metadata,
    )
    for kind in _tellable(request):
        if kind != request.sink:
            # The result is there and will be found; this only says so earlier.
            _tell(request, kind, news)


def _tellable(request: DeliveryRequest) -> list[str]:
    """Return the kinds of places that the request names, other than object stores."""
    places = {
        "sql": request.table,
        "amqp": request.amqp,
        "webhook": request.webhook_url,
    }
    return [kind for kind, place in places.items() if place is not None]


def _tell(request: DeliveryRequest, kind: str, news: Delivery) -> Exception | None:
    """Send a delivery to one place; return what kept it from getting there."""
    body = news.to_json()
    try:
        if kind in ("webhook", FAILURE_CHANNEL):
            url = str(request.webhook_url or request.failure_url)
            is_failure = news.status == FAILED
            webhook.post(url, request.delivery_id, body, even_unsigned=is_failure)
        elif kind == "amqp":
            broker.publish(request.amqp or {}, request.delivery_id, body)
        else:
            _tell_table(request, news, body)
    except DeliveryError as error:
        log.warning("The %s was not told: %s", kind, error)
        return error
    return None


def _tell_table(request: DeliveryRequest, news: Delivery, body: bytes) -> None:
    """Write news to the row; a failure in few words, where it does not fit whole.

    A short column, or one that knows not every character, must not keep Airflow from
    hearing of the failure, and runqy run the job again and again.
    """
    table = request.table or {}
    try:
        database.write(table, request.delivery_id, news.status, body)
    except ResultRefused as refusal:
        if news.status != FAILED:
            raise
        log.warning("%s Trying in few words.", refusal)
        database.write(table, request.delivery_id, FAILED, in_few_words(news))


def _required(place: Any, name: str) -> Any:
    if place is None:
        raise DeliveryImpossible(f"The delivery request has no {name}.")
    return place
