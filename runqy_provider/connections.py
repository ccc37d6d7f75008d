# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The fields of a runqy connection, read and checked in one place."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import SplitResult, urlsplit

from runqy_delivery.signature import SHORTEST_KEY, decode_secret
from runqy_provider.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_CONN_ID = "runqy_default"
DEFAULT_REDIS_CONN_ID = "redis_default"
DEFAULT_AWS_CONN_ID = "aws_default"
DEFAULT_SINK = "webhook"
DEFAULT_PORT = 3000

#: Prefixes of the sinks whose results go through the inbox.
INBOX_SINKS = ("webhook", "amqp")

#: How jobs are enqueued.
HTTP, REDIS = "http", "redis"
TRANSPORTS = (HTTP, REDIS)

#: Types that a runqy connection may have: some secrets backends do not store the type.
RUNQY_TYPES = ("runqy", None, "")

#: What people write for booleans: a URI has only texts.
_TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})
_FALSE = frozenset({"0", "false", "no", "off", "f", "n", "none", ""})

#: Characters that must be quoted in a URL: controls, blanks, and all beyond ASCII.
_NOT_IN_URLS = re.compile(r"[^!-~]")


class ConnectionLike(Protocol):
    """The fields of an Airflow connection that are read."""

    conn_id: str
    host: str | None
    port: int | None
    login: str | None
    password: str | None
    schema: str | None
    extra: str | None
    conn_type: str | None


def extra_of(connection: ConnectionLike) -> Mapping[str, Any]:
    """Return the connection's extra as a mapping.

    Raises:
        Misconfigured: It is not a JSON object.
    """
    if not connection.extra:
        return {}
    try:
        extra = json.loads(connection.extra)
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise Misconfigured(
            f"The extra of connection {connection.conn_id!r} is not a JSON object."
        )
    return extra


def boolean(value: Any, name: str, conn_id: str) -> bool:
    """Return a boolean field.

    Raises:
        Misconfigured: It is neither true nor false.
    """
    if isinstance(value, bool):
        return value
    text = str("" if value is None else value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise Misconfigured(
        f"{name} of connection {conn_id!r} must be true or false, not {value!r}."
    )


def whole_number(value: Any, name: str, conn_id: str) -> int:
    """Return a field that is a whole number, zero or more.

    Raises:
        Misconfigured: It is not one of them.
    """
    try:
        number = int(str(value).strip())
    except ValueError:
        number = -1
    if isinstance(value, bool) or number < 0:
        raise Misconfigured(
            f"{name} of connection {conn_id!r} must be a whole number, not {value!r}."
        )
    return number


def first_given(*values: Any) -> Any:
    """Return the first value that is given: not None, and not an empty text.

    Returns:
        None if none is given.
    """
    return next((value for value in values if value is not None and value != ""), None)


def needs_inbox(sink: str) -> bool:
    """Return whether the results of a sink go through the inbox."""
    return any(part.startswith(INBOX_SINKS) for part in sink.split())


@dataclass(frozen=True)
class RunqyConnection:
    """A runqy connection.

    Attributes:
        conn_id: Id of the Airflow connection.
        server_url: URL of the runqy server, without a slash at its end.
        api_key: Key with the client role (enqueue); the connection's password.
        admin_key: Key with the admin role (delete a job, list workers).
        redis_conn_id: The Redis connection that holds the inbox.
        runqy_redis_conn_id: The Redis connection of runqy itself, if it may be read.
        aws_conn_id: The AWS connection of ``s3://`` sinks.
        sink: The sink of tasks that do not name one.
        callback_url: URL of the receiver as workers reach it; None means Airflow's own
            ``[api] base_url``.
        callback_secrets: Secrets of the callback URLs; the first one signs, all are
            accepted.
        signing_secrets: Secrets that bodies must be signed with; empty means that
            unsigned bodies are accepted.
        transport: How jobs are enqueued: ``http``, or ``redis``, by a script in runqy's
            own Redis.
    """

    conn_id: str
    server_url: str
    api_key: str | None = field(default=None, repr=False)
    admin_key: str | None = field(default=None, repr=False)
    redis_conn_id: str = DEFAULT_REDIS_CONN_ID
    runqy_redis_conn_id: str | None = None
    aws_conn_id: str = DEFAULT_AWS_CONN_ID
    sink: str = DEFAULT_SINK
    callback_url: str | None = None
    callback_secrets: tuple[str, ...] = field(default=(), repr=False)
    signing_secrets: tuple[str, ...] = field(default=(), repr=False)
    transport: str = HTTP

    @classmethod
    def from_connection(cls, connection: ConnectionLike) -> RunqyConnection:
        """Read an Airflow connection of type ``runqy``.

        Raises:
            Misconfigured: The server's URL is missing, or a field is not valid.
        """
        conn_id = connection.conn_id
        if connection.conn_type not in RUNQY_TYPES:
            raise Misconfigured(
                f"Connection {conn_id!r} is of the type {connection.conn_type!r}. Make "
                "it one of the type 'runqy': the receiver does not accept deliveries "
                "for another type."
            )
        extra = extra_of(connection)
        of_conn = f"of connection {conn_id!r}"
        return cls(
            conn_id=conn_id,
            server_url=_server_url(connection),
            api_key=_key(conn_id, "API key (password)", connection.password),
            admin_key=_key(conn_id, "admin_api_key", extra.get("admin_api_key")),
            redis_conn_id=extra.get("redis_conn_id") or DEFAULT_REDIS_CONN_ID,
            runqy_redis_conn_id=extra.get("runqy_redis_conn_id") or None,
            aws_conn_id=extra.get("aws_conn_id") or DEFAULT_AWS_CONN_ID,
            sink=extra.get("sink") or DEFAULT_SINK,
            callback_url=_callback_url(conn_id, extra.get("callback_url")),
            callback_secrets=callback_secrets(
                f"callback_secret {of_conn}", extra.get("callback_secret")
            ),
            signing_secrets=signing_secrets(
                f"signing_secret {of_conn}", extra.get("signing_secret")
            ),
            transport=_transport(conn_id, extra),
        )


def _key(conn_id: str, name: str, value: object) -> str | None:
    """Return a key for an HTTP header, without blanks around it.

    Raises:
        Misconfigured: A header cannot contain it. The message does not quote the key.
    """
    key = str(value or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise Misconfigured(
            f"The {name} of connection {conn_id!r} contains blanks, line breaks or "
            "other characters that are not valid in a key. Paste it again."
        )
    return key or None


def _transport(conn_id: str, extra: Mapping[str, Any]) -> str:
    transport = str(extra.get("transport") or HTTP).strip().lower()
    if transport not in TRANSPORTS:
        raise Misconfigured(
            f"The transport of connection {conn_id!r} is {transport!r}. It can be "
            f"{' or '.join(map(repr, TRANSPORTS))}."
        )
    if transport == REDIS and not extra.get("runqy_redis_conn_id"):
        raise Misconfigured(
            f"The transport of connection {conn_id!r} is 'redis', but it does not name "
            "runqy's own Redis. Enter its connection as runqy_redis_conn_id."
        )
    return transport


def callback_secrets(name: str, value: object) -> tuple[str, ...]:
    """Return the secrets that sign callback URLs, from a field that may hold several.

    Args:
        name: The name of the field, for messages.
        value: The field: secrets that are separated by blanks.

    Raises:
        Misconfigured: One is shorter than ``SHORTEST_KEY`` bytes.
    """
    secrets = _secrets(value)
    if any(len(secret.encode()) < SHORTEST_KEY for secret in secrets):
        raise Misconfigured(
            f"{name} has fewer than {SHORTEST_KEY} characters, so callback URLs could "
            "be guessed. Make one: openssl rand -hex 32."
        )
    return secrets


def signing_secrets(name: str, value: object) -> tuple[str, ...]:
    """Return the secrets that sign bodies, from a field that may hold several.

    Args:
        name: The name of the field, for messages.
        value: The field: secrets ``whsec_...`` that are separated by blanks.

    Raises:
        Misconfigured: One is not valid, or its key is shorter than ``SHORTEST_KEY``.
    """
    secrets = _secrets(value)
    for secret in secrets:
        try:
            decode_secret(secret)
        except ValueError as error:
            raise Misconfigured(f"{name} cannot be used: {error}") from error
    return secrets


def _secrets(value: object) -> tuple[str, ...]:
    return tuple(str(value).split()) if value else ()


def _server_url(connection: ConnectionLike) -> str:
    host = (connection.host or "").strip()
    if not host:
        raise Misconfigured(
            f"Connection {connection.conn_id!r} has no host: set the URL of the runqy "
            f"server, such as http://runqy.example.com:3000.{_also_empty(connection)}"
        )
    has_scheme = "://" in host
    if not has_scheme:
        # As Airflow stores it if the connection is given as a URI.
        host = f"{connection.schema or 'http'}://{host}"
    parts = urlsplit(host.rstrip("/"))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Misconfigured(
            f"The host of connection {connection.conn_id!r} is not an http(s) URL: set "
            "the URL of the runqy server, such as http://runqy.example.com:3000."
        )
    default = None if has_scheme else DEFAULT_PORT
    return _with_port(connection.conn_id, parts, connection.port, default)


def _also_empty(connection: ConnectionLike) -> str:
    """Name the other empty fields that tasks need, so that one message names all."""
    extra = extra_of(connection)
    empty = [] if connection.password else ["an API key (password)"]
    sink = str(extra.get("sink") or DEFAULT_SINK)
    if needs_inbox(sink) and not extra.get("callback_secret"):
        empty.append("a callback_secret (make one: openssl rand -hex 32)")
    return f" Tasks also need {' and '.join(empty)}." if empty else ""


def _with_port(
    conn_id: str, parts: SplitResult, port: int | None, default: int | None
) -> str:
    """Return a URL with the port of the connection's own field, or a default.

    Raises:
        Misconfigured: The URL has another one, or one that is not a number.
    """
    try:
        in_url = parts.port
    except ValueError as error:
        raise Misconfigured(
            f"The port in the host of connection {conn_id!r} is not valid: {error}."
        ) from error
    if port and in_url is not None and port != in_url:
        raise Misconfigured(
            f"Connection {conn_id!r} has two ports: {in_url} in its server URL, and "
            f"{port} in its port field. Make them equal."
        )
    added = None if in_url is not None else port or default
    netloc = f"{parts.netloc}:{added}" if added else parts.netloc
    return parts._replace(netloc=netloc).geturl()


def _callback_url(conn_id: str, value: object) -> str | None:
    if not value:
        return None
    url = str(value).strip().rstrip("/")
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.query
        or parts.fragment
        or _NOT_IN_URLS.search(url)
    ):
        raise Misconfigured(
            f"callback_url of connection {conn_id!r} must be the receiver's http(s) "
            "URL without a query or blanks, such as https://airflow.example.com/runqy."
        )
    return url
