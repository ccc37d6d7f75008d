# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A broker's Airflow connection, and our errors for its client's."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aio_pika
from aio_pika import exceptions
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ConnectionNotAllowed,
    InvalidFrameError,
)
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from runqy_provider.connections import extra_of
from runqy_provider.errors import Misconfigured, NoAccess, NotThere, SinkUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aio_pika.abc import AbstractConnection

#: Seconds for a connection to come about.
CONNECT_TIMEOUT = 10.0

PORT, TLS_PORT = 5672, 5671

_DENIED = (
    exceptions.ProbableAuthenticationError,
    exceptions.AuthenticationError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ConnectionNotAllowed,
)


@dataclass(frozen=True)
class BrokerSettings:
    """How to reach a broker.

    Attributes:
        conn_id: Id of the Airflow connection.
        host: Its host.
        port: Its port.
        login: Its user.
        password: That user's password.
        virtual_host: Its virtual host.
        ssl: True for TLS.
    """

    conn_id: str
    host: str
    port: int
    login: str
    password: str = field(repr=False)
    virtual_host: str
    ssl: bool

    @classmethod
    def fetch(cls, conn_id: str) -> BrokerSettings:
        """Fetch an Airflow connection; blocks: from async code, call it in a thread.

        Raises:
            Misconfigured: Airflow does not give it, the host is missing, or the extra
                is not JSON.
        """
        try:
            connection = BaseHook.get_connection(conn_id)
        except AirflowNotFoundException as error:
            raise Misconfigured(
                f"Airflow gives no connection {conn_id!r}, which the sink names: "
                f"{error}. Create it, or name another one: amqp://conn_id/queue."
            ) from error
        extra = extra_of(connection)
        ssl = bool(extra.get("ssl")) or connection.conn_type == "amqps"
        if not connection.host:
            raise Misconfigured(f"Connection {conn_id!r} has no host: name the broker.")
        return cls(
            conn_id=conn_id,
            host=connection.host,
            port=connection.port or (TLS_PORT if ssl else PORT),
            login=connection.login or "guest",
            password=connection.password or "guest",
            virtual_host=connection.schema or "/",
            ssl=ssl,
        )

    async def connect(self) -> AbstractConnection:
        """Return a new connection."""
        return await aio_pika.connect(
            host=self.host,
            port=self.port,
            login=self.login,
            password=self.password,
            virtualhost=self.virtual_host,
            ssl=self.ssl,
            timeout=CONNECT_TIMEOUT,
            client_properties={"connection_name": "airflow-provider-runqy"},
        )


@contextmanager
def amqp_errors(conn_id: str, what: str) -> Iterator[None]:
    """Turn aio-pika's errors into ours.

    Args:
        conn_id: The Airflow connection in use.
        what: What was being done, for the message: ``"consume queue 'results'"``.
    """
    try:
        yield
    except _DENIED as error:
        raise NoAccess(
            f"Could not {what}: the broker refuses us: {_words(error)}. Check login, "
            f"password, virtual host and rights of connection {conn_id!r}."
        ) from error
    except InvalidFrameError as error:
        # aiormq's word for a broker that closes the connection instead of opening it.
        raise NoAccess(
            f"Could not {what}: the broker closed the connection of {conn_id!r} as it "
            f"was opened: {_words(error)}. Check that its virtual host exists and that "
            "the user may use it."
        ) from error
    except exceptions.ChannelNotFoundEntity as error:
        raise NotThere(
            f"Could not {what} (connection {conn_id!r}): {_words(error)}. Create it, "
            "or check its name in the sink."
        ) from error
    except exceptions.ChannelPreconditionFailed as error:
        raise Misconfigured(
            f"Could not {what} (connection {conn_id!r}): it exists with other "
            f"arguments than durable: {_words(error)}. Name another queue, or take it "
            "as it is: amqp://conn_id/queue?declare=false."
        ) from error
    except exceptions.CONNECTION_EXCEPTIONS as error:
        # aio-pika's own list; a channel that has closed meanwhile is a RuntimeError.
        raise SinkUnavailable(
            f"Could not {what} (connection {conn_id!r}): {_words(error)}"
        ) from error


def _words(error: BaseException) -> str:
    details: Any = error.args[0] if error.args else ""
    return f"{type(error).__name__}: {details}".rstrip(": ")
