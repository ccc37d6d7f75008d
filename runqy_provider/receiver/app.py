# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The receiver's HTTP application: one route that takes deliveries, one for health."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from runqy_delivery import BadDelivery, Delivery
from runqy_delivery.errors import VerificationError
from runqy_delivery.signature import verify
from runqy_provider.errors import Misconfigured, NoAccess, SinkUnavailable
from runqy_provider.inbox import keys
from runqy_provider.inbox.callback_url import is_valid
from runqy_provider.inbox.records import RejectionRecorder
from runqy_provider.inbox.writer import InboxWriter, Outcome, digest, shared_put
from runqy_provider.receiver.body import read_body
from runqy_provider.receiver.connections import (
    CallbackConnection,
    ConnectionLookup,
    Limits,
    LookupThrottled,
    LookupUnavailable,
)
from runqy_provider.receiver.responses import (
    BAD_TOKEN,
    RETRY_AFTER,
    HttpRejection,
    accepted,
    bad_address,
    reason_of,
)
from runqy_provider.redis_client import async_client, is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from redis.asyncio import Redis
    from starlette.requests import Request

    from runqy_provider.inbox.records import Tell
    from runqy_provider.inbox.writer import SharedScript
    from runqy_provider.redis_connection import RedisConnection

log = logging.getLogger(__name__)

#: Bodies larger than this, in bytes, are read in a thread: parsing them would block the
#: event loop, and with it every other request.
LARGE = 256 * 1024

#: The most lists and objects of a body: an empty one takes fifty times its size in
#: memory.
MOST_CONTAINERS = 400_000

#: How far a worker's clock may be from ours, in seconds. Much more than is usual for
#: webhooks: a replay stores nothing new here, and a result must not be lost because of
#: a wrong clock.
CLOCK_TOLERANCE = 3600.0


def create_app(
    lookup: ConnectionLookup,
    limits: Limits | None = None,
    on_rejected: Callable[[str], None] = lambda _reason: None,
) -> Starlette:
    """Return the application.

    Args:
        lookup: Finds the connection of a callback URL.
        limits: How much to accept.
        on_rejected: Is called with the reason for each rejected delivery of a
            connection that exists.
    """
    receiver = Receiver(lookup, limits or Limits(), on_rejected)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await receiver.aclose()

    async def deliver(request: Request) -> Response:
        path = request.path_params
        try:
            return accepted(
                await receiver.take(request, path["conn_id"], path["delivery_id"])
            )
        except HttpRejection as rejection:
            return rejection.to_response()

    async def health(_request: Request) -> Response:
        """Say that the receiver runs; nothing about Redis or Airflow."""
        return JSONResponse({"status": "ok"})

    path = "/{conn_id}/v1/deliveries/{delivery_id}"
    # FastAPI would spend a third of a request's time on parsing and documenting what
    # it does not know.
    return Starlette(
        routes=[Route(path, deliver, methods=["POST"]), Route("/health", health)],
        lifespan=lifespan,
    )


class Receiver:
    """Accepts deliveries and writes them to the inbox of their connection."""

    def __init__(
        self,
        lookup: ConnectionLookup,
        limits: Limits,
        on_rejected: Callable[[str], None],
    ) -> None:
        self._lookup = lookup
        self._on_rejected = on_rejected
        self._limits = limits
        self._in_flight: Counter[tuple[str, str]] = Counter()
        self._all_in_flight = 0
        self._opened: dict[RedisConnection, tuple[Redis, SharedScript]] = {}
        self._rejections = RejectionRecorder(self._client, limits.ttl)
        # One large body is parsed at a time: that takes many times its size in memory.
        self._large = asyncio.Lock()

    async def take(self, request: Request, conn_id: str, delivery_id: str) -> Outcome:
        """Check a request, the cheapest checks first, and store its delivery.

        Returns:
            What became of it: stored, repeated or noted.

        Raises:
            HttpRejection: It is not accepted, and nothing was stored.
        """
        # Before anything is counted: without a valid URL no capacity is used.
        connection = await self._connection(request, conn_id, delivery_id)
        try:
            return await self._take(connection, request, delivery_id)
        except HttpRejection as rejection:
            reason, detail = reason_of(rejection)
            if reason:
                # A sender that should retry has not been refused for good.
                is_final = rejection.retry_after is None
                tell = self._writer(connection).note_refusal if is_final else None
                self._reject(
                    connection,
                    keys.rejected,
                    delivery_id,
                    reason,
                    detail,
                    tell=tell,
                )
            raise

    def _reject(
        self,
        connection: CallbackConnection,
        records: Callable[[str], str],
        delivery_id: str,
        reason: str,
        detail: str = "",
        *,
        tell: Tell | None = None,
    ) -> None:
        """Count and record a rejected delivery, in one of the lists of ``keys``."""
        self._on_rejected(reason)
        redis = connection.redis.for_namespace(connection.conn_id)
        key = records(redis.in_keys(connection.conn_id))
        if delivery_id.startswith(keys.CHECK_PREFIX):
            tell = None  # no task waits for it
        self._rejections.add(redis, key, delivery_id, reason, detail, tell=tell)

    async def _take(
        self, connection: CallbackConnection, request: Request, delivery_id: str
    ) -> Outcome:
        with self._turn(connection.conn_id, delivery_id):
            body = await read_body(
                request.receive, request.headers.get("content-length"), self._limits
            )
            _check_signature(connection, request, body)
            try:
                delivery, mark = await self._parse(body, delivery_id)
            except BadDelivery as error:
                message = f"{error}{_how_to_encode(request)}"
                raise HttpRejection(400, message) from error
            # The token covers it, so it is a number.
            until = int(request.query_params["expires"])
            return await self._store(connection, delivery, body, mark, until)

    @contextmanager
    def _turn(self, conn_id: str, delivery_id: str) -> Iterator[None]:
        """Count a request while it is handled.

        Raises:
            HttpRejection: There are too many: at once, or for one delivery.
        """
        key = conn_id, delivery_id
        if (
            self._all_in_flight >= self._limits.max_in_flight
            or self._in_flight[key] >= self._limits.max_in_flight_per_delivery
        ):
            raise HttpRejection(429, "Too many deliveries at once.", RETRY_AFTER)
        self._in_flight[key] += 1
        self._all_in_flight += 1
        try:
            yield
        finally:
            self._all_in_flight -= 1
            self._in_flight[key] -= 1
            if not self._in_flight[key]:
                del self._in_flight[key]

    async def aclose(self) -> None:
        """Close all Redis clients."""
        await self._rejections.aclose()
        while self._opened:
            _, (client, _) = self._opened.popitem()
            await client.aclose()

    async def _connection(
        self, request: Request, conn_id: str, delivery_id: str
    ) -> CallbackConnection:
        """Return the connection that the URL of the request is valid for."""
        connection = await self._find(conn_id)
        allowed = _is_allowed(connection, request, conn_id, delivery_id)
        if connection is not None and not allowed:
            # Its secret may have been changed since it was cached.
            connection = await self._find(conn_id, refresh=True)
            allowed = _is_allowed(connection, request, conn_id, delivery_id)
        if connection is None or not allowed:
            log.warning(
                "Refused a delivery: connection %r, delivery %r, expires %r: %s",
                conn_id[:64],
                delivery_id[:64],
                request.query_params.get("expires", "")[:16],
                "no such connection" if connection is None else BAD_TOKEN,
            )
            if connection is not None:
                self._reject(connection, keys.bad_url, delivery_id, BAD_TOKEN)
            raise bad_address()
        return connection

    async def _find(
        self, conn_id: str, *, refresh: bool = False
    ) -> CallbackConnection | None:
        try:
            return await self._lookup(conn_id, refresh=refresh)
        except LookupThrottled as error:
            raise HttpRejection(
                429, "Too many deliveries at once.", RETRY_AFTER
            ) from error
        except (LookupUnavailable, Misconfigured) as error:
            # Not an error of the sender, who should retry.
            log.error("Connection %r cannot be used now: %s", conn_id[:64], error)  # noqa: TRY400 - the message is enough
            raise HttpRejection(
                503, "The inbox cannot be reached at the moment.", RETRY_AFTER
            ) from error

    async def _store(
        self,
        connection: CallbackConnection,
        delivery: Delivery,
        body: bytes,
        mark: str,
        until: int,
    ) -> Outcome:
        try:
            writer = self._writer(connection)
            outcome = await writer.put(delivery, body, mark, until)
        except (SinkUnavailable, NoAccess) as error:
            log.error("A delivery could not be stored: %s", error)  # noqa: TRY400 - the message is enough
            is_full = is_out_of_memory(error.__cause__)
            why = "is out of memory" if is_full else "cannot be reached"
            raise HttpRejection(
                503, f"The inbox {why} at the moment.", RETRY_AFTER
            ) from error
        level = logging.WARNING if outcome is Outcome.CONFLICT else logging.INFO
        log.log(
            level,
            "Delivery %s of connection %s (%s, %d bytes): %s",
            delivery.delivery_id,
            connection.conn_id,
            delivery.status,
            len(body),
            outcome.value,
        )
        if outcome is Outcome.CONFLICT:
            self._on_rejected(outcome.value)
            raise HttpRejection(
                409,
                "Another final delivery of this job came first and is kept; this one "
                "was not stored.",
            )
        return outcome

    async def _parse(self, body: bytes, delivery_id: str) -> tuple[Delivery, str]:
        if len(body) > LARGE:
            async with self._large:
                delivery, mark = await asyncio.to_thread(_read, body)
        else:
            delivery, mark = _read(body)
        if delivery.delivery_id != delivery_id:
            raise HttpRejection(
                400,
                f"task_id in the body is {delivery.delivery_id[:128]!r}; this address "
                f"is for {delivery_id!r}. Send back the task_id of the payload.",
            )
        return delivery, mark

    def _writer(self, connection: CallbackConnection) -> InboxWriter:
        conn_id = connection.conn_id
        redis = connection.redis.for_namespace(conn_id)
        client, put = self._open(redis)
        return InboxWriter(client, redis, conn_id, self._limits.ttl, put)

    def _open(self, redis: RedisConnection) -> tuple[Redis, SharedScript]:
        known = self._opened.get(redis)
        if known is None:
            client = async_client(redis, most_connections=self._limits.max_in_flight)
            put = shared_put(client, has_failover=redis.has_failover)
            known = self._opened[redis] = client, put
        return known

    def _client(self, redis: RedisConnection) -> Redis:
        return self._open(redis)[0]


def _is_allowed(
    connection: CallbackConnection | None,
    request: Request,
    conn_id: str,
    delivery_id: str,
) -> bool:
    """Return whether the URL of a request is valid for a connection."""
    query = request.query_params
    return is_valid(
        # Always compared: the time must not tell which connections exist.
        connection.callback_secrets
        if connection is not None
        else ("no such connection",),
        conn_id,
        delivery_id,
        query.get("expires", ""),
        query.get("token", ""),
        time.time(),
    )


def _check_signature(
    connection: CallbackConnection, request: Request, body: bytes
) -> None:
    if not connection.signing_secrets:
        return
    try:
        verify(
            connection.signing_secrets,
            request.headers,
            body,
            time.time(),
            CLOCK_TOLERANCE,
        )
    except VerificationError as error:
        log.warning("Refused a delivery of %s: %s", connection.conn_id, error)
        raise bad_address() from error


def _how_to_encode(request: Request) -> str:
    """Say what to do, if the headers tell why a body is not JSON; else return ""."""
    encoding = request.headers.get("content-encoding", "identity")[:32]
    if encoding.lower() != "identity":
        return (
            f" It has Content-Encoding {encoding!r}: send it uncompressed, without "
            "that header."
        )
    content_type = request.headers.get("content-type", "")[:64]
    if "json" in content_type.lower() or "form" not in content_type.lower():
        return ""
    return f" It has Content-Type {content_type!r}: send JSON, not a form."


def _read(body: bytes) -> tuple[Delivery, str]:
    if body.count(b"{") + body.count(b"[") > MOST_CONTAINERS:
        raise BadDelivery(
            f"The delivery has more than {MOST_CONTAINERS} lists and objects. Deliver "
            "large results to an object store."
        )
    delivery = Delivery.from_json(body)
    return delivery, digest(delivery)
