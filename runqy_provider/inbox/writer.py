# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Put deliveries into the inbox: the first final one wins."""

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

    from runqy_provider.connections import RedisSettings

# One script, so that of two deliveries at once exactly one is first. A repeat says
# again that it came: whoever waits may have missed the first time.
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
    """What became of a delivery that was put."""

    STORED = "stored"
    REPEATED = "repeated"
    CONFLICT = "conflict"
    NOTED = "noted"


class InboxWriter:
    """Puts deliveries into one box of the inbox.

    Args:
        client: A connected client; whoever made it closes it.
        settings: How that client reaches its Redis, for messages.
        box: Which; see ``keys``.
        ttl: Seconds that an unread delivery stays.
    """

    def __init__(
        self,
        client: Redis,
        settings: RedisSettings,
        box: str,
        ttl: int = keys.UNREAD_TTL,
    ) -> None:
        self._client = client
        self._settings = settings
        self._box = box
        self._ttl = ttl
        self._put = client.register_script(_PUT)

    async def put(
        self, delivery: Delivery, body: bytes, mark: str, until: int = 0
    ) -> Outcome:
        """Keep a delivery; when this returns, Redis has it.

        Args:
            delivery: The delivery, checked.
            body: Its bytes as they came; what is read later.
            mark: The delivery's ``digest``.
            until: Until when another one could come, in seconds since 1970, though
                this one be read and forgotten by then; 0 where nobody says.

        Returns:
            STORED for the first final delivery, REPEATED for the same again, CONFLICT
            for another one, NOTED for a progress message.

        Raises:
            SinkUnavailable: Redis is away: nothing was stored.
            NoAccess: Redis refuses us: nothing was stored.
        """
        with redis_errors(self._settings, "store a delivery"):
            if not delivery.is_final:
                return await on_primary(self._client, lambda: self._note(delivery))
            return await on_primary(
                self._client, lambda: self._store(delivery, body, mark, until)
            )

    async def _note(self, delivery: Delivery) -> Outcome:
        key = keys.progress(self._box, delivery.delivery_id)
        note = Progress.of(delivery).to_json()
        await self._client.set(key, note, ex=self._ttl)
        await self._client.publish(keys.arrivals(self._box), delivery.delivery_id)
        return Outcome.NOTED

    async def _store(
        self, delivery: Delivery, body: bytes, mark: str, until: int
    ) -> Outcome:
        box, delivery_id = self._box, delivery.delivery_id
        answer = await self._put(
            keys=[
                keys.delivery(box, delivery_id),
                keys.arrivals(box),
                keys.seen(box, delivery_id),
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
