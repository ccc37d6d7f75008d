# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Write deliveries to the inbox: the first final one wins."""

from __future__ import annotations

import hashlib
import json
import time
from enum import Enum
from typing import TYPE_CHECKING

from runqy_delivery import BadDelivery, Delivery
from runqy_provider.inbox import keys
from runqy_provider.inbox.channel import MOST_KEPT, channel_of, event_of
from runqy_provider.inbox.progress import Progress
from runqy_provider.inbox.records import MOST_RECORDS, DeliveryRecord
from runqy_provider.inbox.replicas import ReplicaCheck
from runqy_provider.inbox.scripts import NOTE, PUT, publish_command
from runqy_provider.inbox.shared_script import SharedScript
from runqy_provider.redis_client import redis_errors
from runqy_provider.sanitize import one_line

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from runqy_provider.connections import RedisConnection


#: Writes JSON so that the same values give the same text.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


#: The longest text about a refused delivery that is kept, in characters.
LONGEST_REFUSAL = 500


class Outcome(Enum):
    """What became of a delivery that was written."""

    STORED = "stored"
    REPEATED = "repeated"
    CONFLICT = "conflict"
    NOTED = "noted"


def shared_put(client: Redis, *, has_failover: bool = False) -> SharedScript:
    """Return what writers of several namespaces can share.

    Args:
        client: A connected client; the caller closes it.
        has_failover: Whether another Redis may become the primary: then a delivery is
            stored once a replica has it.
    """
    return SharedScript(client, PUT, ReplicaCheck() if has_failover else None)


class InboxWriter:
    """Writes deliveries to one namespace of the inbox.

    Args:
        client: A client of ``connection.for_namespace``; the caller closes it.
        connection: The Redis of the inbox.
        namespace: The namespace; see ``keys``.
        ttl: Seconds that an unread delivery is kept.
        put: What ``shared_put`` has returned for this client; None for a new one.
            Writers that share it share their round trips.
    """

    def __init__(
        self,
        client: Redis,
        connection: RedisConnection,
        namespace: str,
        ttl: int = keys.UNREAD_TTL,
        put: SharedScript | None = None,
    ) -> None:
        self._client = client
        self._connection = connection
        self._namespace = namespace
        self._in_keys = connection.in_keys(namespace)
        self._publish = publish_command(connection)
        self._ttl = ttl
        self._put = put or shared_put(client, has_failover=connection.has_failover)

    async def put(
        self, delivery: Delivery, body: bytes, mark: str, until: int = 0
    ) -> Outcome:
        """Store a delivery; when this returns, Redis has it.

        Args:
            delivery: The delivery, checked.
            body: Its body, unchanged; this is what is read later.
            mark: The delivery's ``digest``.
            until: Until when another one could arrive, in seconds since 1970, even
                after this one was read and forgotten; 0 where that is not known.

        Returns:
            STORED for the first final delivery, REPEATED for the same again, CONFLICT
            for a different one, NOTED for a progress message.

        Raises:
            SinkUnavailable: Redis is unavailable, or no replica has confirmed the
                delivery: repeat it.
            NoAccess: Redis denies access: nothing was stored.
        """
        with redis_errors(self._connection, "store a delivery"):
            if delivery.is_final:
                return await self._store(delivery, body, mark, until)
            return await self._store_progress(delivery)

    async def note_refusal(self, delivery_id: str, text: str) -> None:
        """Tell the task that waits for a delivery why one of its job was refused.

        Args:
            delivery_id: Id of the delivery, which is known to be one of ours: each has
                a key in Redis.
            text: Who refused what, and why; a sentence.

        Raises:
            SinkUnavailable: Redis is unavailable.
            NoAccess: Redis denies access.
        """
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        note = f"{one_line(text, LONGEST_REFUSAL).rstrip('.')} (at {at})."
        names = [keys.refused(self._in_keys, delivery_id), keys.arrivals(self._in_keys)]
        with redis_errors(self._connection, "record a refused delivery"):
            await self._client.eval(
                NOTE, len(names), *names, note, self._ttl, delivery_id, self._publish
            )

    async def _store_progress(self, delivery: Delivery) -> Outcome:
        in_keys, delivery_id = self._in_keys, delivery.delivery_id
        names = [keys.progress(in_keys, delivery_id), keys.arrivals(in_keys)]
        note = Progress.of(delivery).to_json()
        await self._client.eval(
            NOTE, len(names), *names, note, self._ttl, delivery_id, self._publish
        )
        return Outcome.NOTED

    async def _store(
        self, delivery: Delivery, body: bytes, mark: str, until: int
    ) -> Outcome:
        in_keys, delivery_id = self._in_keys, delivery.delivery_id
        now = round(time.time(), 3)
        channel = channel_of(delivery_id)
        event = ""
        if channel is not None:
            event = json.dumps(event_of(delivery, len(body), self._namespace, now))
        answer: bytes = await self._put(
            keys=[
                keys.delivery(in_keys, delivery_id),
                keys.arrivals(in_keys),
                keys.seen(in_keys, delivery_id),
                keys.accepted(in_keys),
                keys.rejected(in_keys),
                keys.channel(in_keys, channel or ""),
            ],
            args=[
                mark,
                delivery.status,
                body,
                f"{now:.3f}",
                self._ttl,
                delivery_id,
                until,
                _record(delivery, len(body), now),
                MOST_RECORDS - 1,
                event,
                MOST_KEPT,
                self._publish,
            ],
        )
        return Outcome(answer.decode())


def _record(delivery: Delivery, size: int, now: float) -> str:
    """Return the record of a delivery as JSON; empty where it only checks the inbox."""
    if delivery.delivery_id.startswith(keys.CHECK_PREFIX):
        return ""
    return DeliveryRecord(now, delivery.delivery_id, delivery.status, size).to_json()


def digest(delivery: Delivery) -> str:
    """Return what makes two deliveries the same: all they say, however it is spelled.

    The traceback and the log are left out: they name lines, addresses and times that
    differ between two runs of the same job.

    Raises:
        BadDelivery: Its JSON is nested too deeply to be written again.
    """
    said = {name: value for name, value in vars(delivery).items() if value is not None}
    said.pop("log", None)
    if delivery.error is not None:
        said["error"] = [delivery.error.type, delivery.error.message]
    try:
        canonical = _CANONICAL.encode(said)
    except RecursionError as error:
        raise BadDelivery("The delivery's JSON is nested too deeply.") from error
    return hashlib.sha256(canonical.encode()).hexdigest()
