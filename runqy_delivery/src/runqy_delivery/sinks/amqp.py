# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver to a message queue: one persistent message, confirmed by the broker.

The broker's address is a secret, so it comes from the worker's environment (a runqy
vault) and never from the payload.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from runqy_delivery._dsn import read_address, unusable
from runqy_delivery._retry import persist
from runqy_delivery.errors import DeliveryImpossible

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Environment variable (a runqy vault) with the broker's URL, such as
#: ``amqp://user:password@host:5672/%2F``.
URL_VARIABLE = "RUNQY_DELIVERY_AMQP_URL"

#: What pika takes; it would read other URLs, too, and try their hosts.
SCHEMES = ("amqp", "amqps")

PERSISTENT = 2


def publish(address: Mapping[str, Any], delivery_id: str, body: bytes) -> None:
    """Publish a delivery, and wait until the broker has it on a queue.

    Args:
        address: From the delivery request: ``exchange`` and ``routing_key``.
        delivery_id: Id of the message.
        body: The delivery as JSON.

    Raises:
        DeliveryImpossible: It has no queue for it, or its URL cannot be read.
        DeliveryUndeliverable: The broker is away.
    """
    pika = _pika()
    url = os.environ.get(URL_VARIABLE)
    if not url:
        raise DeliveryImpossible(
            f"The result goes to a message queue, but {URL_VARIABLE} is not set: put "
            "the broker's URL into a vault of this queue."
        )
    exchange, key = str(address.get("exchange", "")), str(address.get("routing_key"))
    parameters = _parameters(pika, url)
    what = (
        f"Publishing to exchange {exchange!r} with routing key {key!r} at "
        f"{parameters.host}:{parameters.port}"
    )
    properties = pika.BasicProperties(
        content_type="application/json",
        delivery_mode=PERSISTENT,
        message_id=delivery_id,
    )
    errors = pika.exceptions

    def attempt() -> None:
        connection = pika.BlockingConnection(parameters)
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish(exchange, key, body, properties, mandatory=True)
        finally:
            if connection.is_open:
                connection.close()

    refusals = (
        errors.UnroutableError,
        errors.ChannelClosedByBroker,
        errors.ProbableAuthenticationError,
        errors.ProbableAccessDeniedError,
    )
    # A name that cannot be resolved just now, or no route, comes as an OSError.
    transient = (errors.AMQPError, OSError)
    try:
        persist(
            what, attempt, transient, lasting=lambda error: isinstance(error, refusals)
        )
    except refusals as error:
        raise DeliveryImpossible(
            f"{what} was refused: {type(error).__name__}: {error}. Check that the "
            "queue and the exchange exist, and the rights of the broker's user."
        ) from error


def _parameters(pika: Any, url: str) -> Any:
    """Return pika's reading of the broker's URL.

    Raises:
        DeliveryImpossible: It cannot be read; the message does not repeat it.
    """
    address = read_address(url, URL_VARIABLE)
    if address.scheme not in SCHEMES:
        raise unusable(
            URL_VARIABLE, f"cannot be used: its scheme is none of {', '.join(SCHEMES)}"
        )
    try:
        return pika.URLParameters(address.url)
    except (ValueError, TypeError, SyntaxError, AttributeError, OSError) as error:
        # Options are Python's literals and names of files, so more than one kind; the
        # words, and a traceback with them, may repeat what stands in the URL.
        raise unusable(
            URL_VARIABLE, f"cannot be used ({type(error).__name__})"
        ) from None


def _pika() -> Any:
    try:
        importlib.import_module("pika.exceptions")
        return importlib.import_module("pika")
    except ImportError as error:
        raise DeliveryImpossible(
            "The result goes to a message queue, but pika is not installed: add it to "
            "the requirements.txt of the task code."
        ) from error
