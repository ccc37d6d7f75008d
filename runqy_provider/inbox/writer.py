# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Write deliveries to the inbox: the first final one wins."""

from __future__ import annotations

import hashlib
import json
import time
from enum import Enum
from typing import TYPE_CHECKING, cast

from runqy_delivery import BadDelivery, Delivery
from runqy_provider.inbox import keys
from runqy_provider.inbox.progress import Progress
from runqy_provider.redis_client import on_primary, redis_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from runqy_provider.connections import RedisConnection

# One script, so that of two deliveries at once exactly one is first. A repetition is
# published again: the first message may have been missed.
_PUT = """
local known = redis.call('HGET', KEYS[1], 'digest') or redis.call('GET', KEYS[3])
if known and known ~= ARGV[1] then return 'conflict' end
if not known then
  redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'status', ARGV[2], 'body', ARGV[3],
             'at', ARGV[4])
  redis.call('EXPIRE', KEYS[1], ARGV[5])
  if ARGV[7] ~= '0' then
    redis.call('SET', KEYS[3], ARGV[1])
    redis.call('EXPIREAT', KEYS[3], ARGV[7])
  end
end
redis.call('PUBLISH', KEYS[2], ARGV[6])
return known and 'repeated' or 'stored'
"""


class Outcome(Enum):
    """What became of a delivery that was written."""

    STORED = "stored"
    REPEATED = "repeated"
    CONFLICT = "conflict"
    NOTED = "noted"


class InboxWriter:
    """Writes deliveries to one namespace of the inbox.

    Args:
        client: A connected client; the caller closes it.
        connection: The connection of that client, for messages.
        namespace: The namespace; see ``keys``.
        ttl: Seconds that an unread delivery is kept.
    """

    def __init__(
        self,
        client: Redis,
        connection: RedisConnection,
        namespace: str,
        ttl: int = keys.UNREAD_TTL,
    ) -> None:
        self._client = client
        self._connection = connection
        self._namespace = namespace
        self._ttl = ttl
        self._put = client.register_script(_PUT)

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
        answer = await self._put(
            keys=[
                keys.delivery(namespace, delivery_id),
                keys.arrivals(namespace),
                keys.seen(namespace, delivery_id),
            ],
            args=[
                mark,
                delivery.status,
                body,
                f"{time.time():.3f}",
                self._ttl,
                delivery_id,
                until,
            ],
        )
        return Outcome(cast("bytes", answer).decode())


def digest(delivery: Delivery) -> str:
    """Return what makes two deliveries the same: all they say, however it is spelled.

    The traceback is left out: it names lines and addresses that differ between two
    runs of the same failing job.

    Raises:
        BadDelivery: Its JSON is nested too deeply to be written again.
    """
    said = {name: value for name, value in vars(delivery).items() if value is not None}
    if delivery.error is not None:
        said["error"] = [delivery.error.type, delivery.error.message]
    try:
        canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    except RecursionError as error:
        raise BadDelivery("The delivery's JSON is nested too deeply.") from error
    return hashlib.sha256(canonical.encode()).hexdigest()
