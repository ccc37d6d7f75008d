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
from runqy_provider.inbox.shared_script import SharedScript
from runqy_provider.inbox.source import delivery_uri
from runqy_provider.redis_client import on_primary, redis_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from runqy_provider.connections import RedisConnection

# One script, so that of two deliveries at once exactly one is first. A repetition is
# published again: the first message may have been missed. The event of a channel comes
# first: should the script fail after it, the sender tries again, and the event comes
# twice, not never. The record is written with pcall: a Redis that denies it must not
# refuse the delivery.
_PUT = """
local known = redis.call('HGET', KEYS[1], 'digest') or redis.call('GET', KEYS[3])
local function record(outcome, list)
  if ARGV[8] == '' then return outcome end
  redis.pcall('LPUSH', list, outcome .. '\\n' .. ARGV[8])
  redis.pcall('LTRIM', list, 0, ARGV[9])
  redis.pcall('EXPIRE', list, ARGV[5])
  return outcome
end
if known and known ~= ARGV[1] then return record('conflict', KEYS[5]) end
if not known then
  if ARGV[10] ~= '' then
    redis.call('XADD', KEYS[6], 'MAXLEN', '~', ARGV[11], '*', 'event', ARGV[10])
    redis.call('EXPIRE', KEYS[6], ARGV[5])
  end
  redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'status', ARGV[2], 'body', ARGV[3],
             'at', ARGV[4])
  redis.call('EXPIRE', KEYS[1], ARGV[5])
  if ARGV[7] ~= '0' then
    redis.call('SET', KEYS[3], ARGV[1])
    redis.call('EXPIREAT', KEYS[3], ARGV[7])
  end
end
redis.call('PUBLISH', KEYS[2], ARGV[6])
return record(known and 'repeated' or 'stored', KEYS[4])
"""


#: Writes JSON so that the same values give the same text.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


class Outcome(Enum):
    """What became of a delivery that was written."""

    STORED = "stored"
    REPEATED = "repeated"
    CONFLICT = "conflict"
    NOTED = "noted"


def shared_put(client: Redis) -> SharedScript:
    """Return what writers of several namespaces can share.

    Args:
        client: A connected client; the caller closes it.
    """
    return SharedScript(client, _PUT)


class InboxWriter:
    """Writes deliveries to one namespace of the inbox.

    Args:
        client: A connected client; the caller closes it.
        connection: The connection of that client, for messages.
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
        self._ttl = ttl
        self._put = put or shared_put(client)

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
            SinkUnavailable: Redis is unavailable: nothing was stored.
            NoAccess: Redis denies access: nothing was stored.
        """
        with redis_errors(self._connection, "store a delivery"):
            if not delivery.is_final:
                return await on_primary(self._client, lambda: self._note(delivery))
            return await on_primary(
                self._client, lambda: self._store(delivery, body, mark, until)
            )

    async def _note(self, delivery: Delivery) -> Outcome:
        key = keys.progress(self._namespace, delivery.delivery_id)
        note = Progress.of(delivery).to_json()
        await self._client.set(key, note, ex=self._ttl)
        await self._client.publish(keys.arrivals(self._namespace), delivery.delivery_id)
        return Outcome.NOTED

    async def _store(
        self, delivery: Delivery, body: bytes, mark: str, until: int
    ) -> Outcome:
        namespace, delivery_id = self._namespace, delivery.delivery_id
        now = round(time.time(), 3)
        channel = channel_of(delivery_id)
        event = ""
        if channel is not None:
            uri = delivery_uri(namespace, delivery_id)
            event = json.dumps(event_of(delivery, len(body), uri, now))
        answer: bytes = await self._put(
            keys=[
                keys.delivery(namespace, delivery_id),
                keys.arrivals(namespace),
                keys.seen(namespace, delivery_id),
                keys.accepted(namespace),
                keys.rejected(namespace),
                keys.channel(namespace, channel or ""),
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
