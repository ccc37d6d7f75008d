# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m runqy_provider.receiver``: the receiver alone, without Airflow.

For networks in which callbacks must not reach Airflow: it needs the inbox's Redis and
the connection's secrets, and nothing else. Secrets come from environment variables,
never from arguments, which every user of the machine can read.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

import uvicorn

from runqy_provider.connections import (
    DEFAULT_CONN_ID,
    callback_secrets,
    signing_secrets,
)
from runqy_provider.receiver.app import create_app
from runqy_provider.receiver.connections import CallbackConnection, Limits
from runqy_provider.redis_connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REDIS_URL = "RUNQY_INBOX_REDIS_URL"
CALLBACK_SECRET = "RUNQY_CALLBACK_SECRET"  # noqa: S105 - the name of a variable
SIGNING_SECRET = "RUNQY_SIGNING_SECRET"  # noqa: S105 - the name of a variable


def connection_from(environment: Mapping[str, str], conn_id: str) -> CallbackConnection:
    """Return the one connection of a receiver that runs alone.

    Raises:
        ValueError: A variable is missing or not valid.
    """
    missing = [
        name for name in (REDIS_URL, CALLBACK_SECRET) if not environment.get(name)
    ]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} must be set: the Redis that Airflow's connection "
            f"names as redis_conn_id, and the callback_secret of connection "
            f"{conn_id!r}."
        )
    return CallbackConnection(
        conn_id,
        RedisConnection.from_connection(_UrlConnection(environment[REDIS_URL])),
        callback_secrets(CALLBACK_SECRET, environment[CALLBACK_SECRET]),
        signing_secrets(SIGNING_SECRET, environment.get(SIGNING_SECRET)),
    )


class _UrlConnection:
    """The fields of a Redis connection, as Airflow reads them from a URI.

    Args:
        url: ``redis://LOGIN:PASSWORD@HOST:PORT/DB?FIELD=VALUE``, or ``rediss://`` for
            TLS. Fields are those of the connection's extra.

    Raises:
        ValueError: It is not such a URL. The message does not quote it.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"redis", "rediss"}:
            raise ValueError(f"{REDIS_URL} must begin with redis:// or rediss://.")
        self.conn_id = REDIS_URL
        self.conn_type: str | None = parts.scheme
        try:
            self.port = parts.port
        except ValueError:
            raise ValueError(
                f"The port of {REDIS_URL} is not a number. If the password contains "
                "special characters, quote them: / is %2F, @ is %40."
            ) from None
        self.host: str | None = parts.hostname or "localhost"
        self.login = unquote(parts.username or "") or None
        self.password = unquote(parts.password or "") or None
        self.schema: str | None = unquote(parts.path.strip("/"))
        self.extra: str | None = json.dumps(dict(parse_qsl(parts.query)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m runqy_provider.receiver",
        description="Accept deliveries of runqy jobs over HTTP and write them to the "
        f"inbox. Environment: {REDIS_URL}, {CALLBACK_SECRET}, {SIGNING_SECRET}.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090, help="0: any free one")
    parser.add_argument(
        "--conn-id", default=DEFAULT_CONN_ID, help="the runqy connection it serves"
    )
    parser.add_argument(
        "--max-body",
        type=int,
        default=Limits.max_body_bytes,
        help="the largest body, in bytes",
    )
    options = parser.parse_args(arguments)
    try:
        connection = connection_from(os.environ, options.conn_id)
    except ValueError as error:
        print(f"The receiver cannot start: {error}", file=sys.stderr)  # noqa: T201 - a command line
        return 2

    async def lookup(
        conn_id: str,
        *,
        refresh: bool = False,  # noqa: ARG001 - an environment does not change
    ) -> CallbackConnection | None:
        return connection if conn_id == connection.conn_id else None

    # What was imported stays: the garbage collector should not scan it again, which
    # would stop the event loop for about 50 ms each time.
    gc.collect()
    gc.freeze()
    uvicorn.run(
        create_app(lookup, Limits(max_body_bytes=options.max_body)),
        host=options.host,
        port=options.port,
        # The access log would contain callback URLs, which are secrets.
        access_log=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
