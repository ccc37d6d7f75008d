# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The Airflow connection of a broker, and the translation of aio-pika's errors."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aio_pika
from aio_pika import exceptions
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ConnectionNotAllowed,
    InvalidFrameError,
)

from runqy_provider.airflow_compat import (
    AirflowNotFoundException,
    get_connection,
    in_thread,
)
from runqy_provider.connections import extra_of
from runqy_provider.errors import Misconfigured, NoAccess, NotThere, SinkUnavailable
from runqy_provider.python_compat import is_cancelled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aio_pika.abc import AbstractConnection

#: Seconds that connecting may take.
CONNECT_TIMEOUT = 10.0

PORT, TLS_PORT = 5672, 5671

_DENIED = (
    exceptions.ProbableAuthenticationError,
    exceptions.AuthenticationError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ConnectionNotAllowed,
)

#: aio-pika's list of errors of a connection, with RuntimeError for a closed channel,
#: and what asyncio raises besides.
_ENDED = (
    *exceptions.CONNECTION_EXCEPTIONS,
    asyncio.CancelledError,
    asyncio.InvalidStateError,
    asyncio.TimeoutError,
    EOFError,
)


async def connect(conn_id: str) -> AbstractConnection:
    """Return a new connection to the broker of an Airflow connection.

    Raises:
        Misconfigured: Airflow did not return the connection, its host is missing, or
            its extra is not JSON.
        Exception: An error of aio-pika; see ``amqp_errors``.
    """
    arguments = await in_thread(_arguments, conn_id)
    connection: AbstractConnection = await aio_pika.connect(**arguments)
    return connection


def _arguments(conn_id: str) -> dict[str, Any]:
    """Return the arguments of aio-pika, with the password: they are never logged."""
    try:
        connection = get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise Misconfigured(
            f"Airflow returned no connection {conn_id!r}, which the sink names: "
            f"{error}. Create it, or name another one: amqp://conn_id/queue."
        ) from error
    ssl = bool(extra_of(connection).get("ssl")) or connection.conn_type == "amqps"
    if not connection.host:
        raise Misconfigured(
            f"Connection {conn_id!r} has no host. Set it to that of the broker."
        )
    return {
        "host": connection.host,
        "port": connection.port or (TLS_PORT if ssl else PORT),
        "login": connection.login or "guest",
        "password": connection.password or "guest",
        "virtualhost": connection.schema or "/",
        "ssl": ssl,
        "timeout": CONNECT_TIMEOUT,
        "client_properties": {"connection_name": "airflow-provider-runqy"},
    }


@contextmanager
def amqp_errors(conn_id: str, operation: str) -> Iterator[None]:
    """Turn errors of aio-pika into ours.

    Args:
        conn_id: The Airflow connection in use.
        operation: What was attempted, for the message: ``"consume queue 'results'"``.

    Raises:
        NoAccess: The broker denied access.
        NotThere: The queue or the exchange does not exist.
        Misconfigured: The queue exists with other arguments.
        SinkUnavailable: The broker is unavailable.
    """
    try:
        yield
    except _DENIED as error:
        raise NoAccess(
            f"Could not {operation}: access denied: {_message(error)}. Check login, "
            f"password, virtual host and permissions of connection {conn_id!r}."
        ) from error
    except InvalidFrameError as error:
        # aiormq raises this if the broker closes a connection while it is opened.
        raise NoAccess(
            f"Could not {operation}: the broker closed the connection {conn_id!r} "
            f"while it was opened: {_message(error)}. Check that its virtual host "
            "exists and that the user may use it."
        ) from error
    except exceptions.ChannelNotFoundEntity as error:
        raise NotThere(
            f"Could not {operation} (connection {conn_id!r}): {_message(error)}. "
            "Create it, or check its name in the sink."
        ) from error
    except exceptions.ChannelPreconditionFailed as error:
        raise Misconfigured(
            f"Could not {operation} (connection {conn_id!r}): it exists, but with "
            f"other arguments than ours (durable): {_message(error)}. Name another "
            "queue, or use it as it is: amqp://conn_id/queue?declare=false."
        ) from error
    except (asyncio.CancelledError, Exception) as error:
        is_ours = isinstance(error, asyncio.CancelledError) and is_cancelled()
        if is_ours or not _is_of_connection(error):
            raise
        raise SinkUnavailable(
            f"Could not {operation} (connection {conn_id!r}): {_message(error)}"
        ) from error


def _is_of_connection(error: BaseException) -> bool:
    """Return whether an error says that a connection or a channel has ended.

    aiormq raises ``Exception`` itself, or a cancellation, to callers that wait for an
    answer when a connection ends.
    """
    return type(error) is Exception or isinstance(error, _ENDED)


def _message(error: BaseException) -> str:
    details: Any = error.args[0] if error.args else ""
    if not details:
        return (
            "the connection to the broker, or a channel of it, was closed meanwhile "
            f"({type(error).__name__}). Check that the broker runs, and its log."
        )
    return f"{type(error).__name__}: {details}"
