# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver to a message queue: one persistent message, confirmed by the broker.

The broker's URL holds a password, so it comes from the worker's environment (a runqy
vault) and never from the payload.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from runqy_delivery._dsn import dsn_from_environment, invalid_dsn
from runqy_delivery._retry import retry_call
from runqy_delivery.errors import DeliveryImpossible

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Environment variable (a runqy vault) with the broker's URL, such as
#: ``amqp://user:password@host:5672/%2F``.
URL_VARIABLE = "RUNQY_DELIVERY_AMQP_URL"

#: Accepted URL schemes. pika does not check them: it would connect to any URL's host.
SCHEMES = ("amqp", "amqps")

#: AMQP's delivery mode for messages that survive a restart of the broker.
PERSISTENT = 2


def publish(destination: Mapping[str, Any], delivery_id: str, body: bytes) -> None:
    """Publish a delivery, and wait until the broker confirms it.

    Args:
        destination: ``exchange`` and ``routing_key``, from the delivery request.
        delivery_id: Id of the delivery, which becomes the id of the message.
        body: The delivery as JSON.

    Raises:
        DeliveryImpossible: pika or the broker's URL is missing, the URL is not valid,
            the broker routes the message to no queue, or it refuses the login.
        DeliveryUndeliverable: The broker could not be reached within the retry budget.
    """
    pika = _import_pika()
    parameters = _parameters(pika)
    exchange = str(destination.get("exchange", ""))
    routing_key = str(destination.get("routing_key"))
    properties = pika.BasicProperties(
        content_type="application/json",
        delivery_mode=PERSISTENT,
        message_id=delivery_id,
    )
    message = (exchange, routing_key, body, properties)
    operation = (
        f"Publishing to exchange {exchange!r} with routing key {routing_key!r} at "
        f"{parameters.host}:{parameters.port}"
    )
    permanent = _permanent_errors(pika)
    try:
        retry_call(
            operation,
            lambda: _publish_once(pika, parameters, message),
            # An unknown host or a missing route is an OSError, and may be temporary.
            retryable=(pika.exceptions.AMQPError, OSError),
            is_permanent=lambda error: isinstance(error, permanent),
        )
    except permanent as error:
        raise DeliveryImpossible(
            f"{operation} was refused: {type(error).__name__}: {error}. Check that the "
            "exchange and the queue exist, and the permissions of the broker's user."
        ) from error


def _publish_once(pika: Any, parameters: Any, message: tuple[Any, ...]) -> None:
    """Connect and publish a message: exchange, routing key, body, properties."""
    connection = pika.BlockingConnection(parameters)
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(*message, mandatory=True)
    finally:
        if connection.is_open:
            connection.close()


def _permanent_errors(pika: Any) -> tuple[Any, ...]:
    """Return pika's errors that would occur again."""
    return (
        pika.exceptions.UnroutableError,
        pika.exceptions.ChannelClosedByBroker,
        pika.exceptions.ProbableAuthenticationError,
        pika.exceptions.ProbableAccessDeniedError,
    )


def _parameters(pika: Any) -> Any:
    """Return pika's connection parameters for the broker's URL.

    Raises:
        DeliveryImpossible: The URL is missing or not valid; the message does not repeat
            it.
    """
    dsn = dsn_from_environment(URL_VARIABLE, "a message queue", "broker")
    if dsn.scheme not in SCHEMES:
        raise invalid_dsn(
            URL_VARIABLE, f"cannot be used: its scheme must be {' or '.join(SCHEMES)}"
        )
    try:
        return pika.URLParameters(dsn.url)
    except (ValueError, TypeError, SyntaxError, AttributeError, OSError) as error:
        # pika evaluates some options as Python literals or opens them as files, hence
        # so many types. Without message and cause: they may repeat parts of the URL.
        raise invalid_dsn(
            URL_VARIABLE, f"cannot be used ({type(error).__name__})"
        ) from None


def _import_pika() -> Any:
    try:
        importlib.import_module("pika.exceptions")
        return importlib.import_module("pika")
    except ImportError as error:
        raise DeliveryImpossible(
            "The result goes to a message queue, but pika is not installed: add it to "
            "the requirements.txt of the task code."
        ) from error
