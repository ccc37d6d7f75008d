# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Write deliveries to the inbox: the first final one wins.

Writers share round trips: each takes all deliveries that are waiting.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import RedisError

from runqy_delivery import BadDelivery, Delivery
from runqy_provider.config import Config
from runqy_provider.inbox import keys
from runqy_provider.inbox.callback_url import channel_of
from runqy_provider.inbox.channel_reader import event_of
from runqy_provider.inbox.keys import Progress
from runqy_provider.inbox.records import MOST_RECORDS, DeliveryRecord
from runqy_provider.redis_client import redis_errors
from runqy_provider.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from runqy_provider.redis_connection import RedisConnection

#: Writes JSON so that the same values give the same text.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

#: The longest text about a refused delivery that is kept, in characters.
LONGEST_REFUSAL = 500

#: Round trips at once: if one connection hangs, the others go on.
ROUND_TRIPS_AT_ONCE = 2

#: The most calls of one round trip, and the most bytes of their arguments, so that a
#: large body does not keep many others waiting.
MOST_CALLS = 100
MOST_BYTES = 1024 * 1024

#: Seconds for which a round trip waits until a replica has what it wrote. Usually this
#: takes a millisecond. Without a replica, it takes the whole time.
REPLICA_WAIT = 0.1

#: Seconds for which nothing counts as stored after the replica was lost. A primary that
#: was just replaced may not know it yet, and what it then stores is lost. After that
#: time, the replica counts as gone, and the inbox works without one.
LOST_FOR = 30.0

#: A function for scripts. Redis 6 has no REDIS_VERSION_NUM, and no sharded channels.
PUBLISH = """
local function publish(command, channel, message)
  if not redis.REDIS_VERSION_NUM then command = 'PUBLISH' end
  redis.call(command, channel, message)
end
"""

# One script, so that exactly one of two simultaneous deliveries is first. A repetition
# is published again: the first message may have been missed. The event of a channel is
# written first: if the script then fails, the retry duplicates the event rather than
# losing it. The record is written with pcall: if Redis denies that, the delivery must
# still be stored. Events older than the TTL of deliveries are removed with pcall, too.
PUT = (
    PUBLISH
    + """
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
    local id = redis.call('XADD', KEYS[6], 'MAXLEN', '~', ARGV[11], '*',
                          'event', ARGV[10])
    local oldest = tonumber(string.match(id, '^%d+')) - ARGV[5] * 1000
    redis.pcall('XTRIM', KEYS[6], 'MINID', string.format('%.0f', oldest))
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
publish(ARGV[12], KEYS[2], ARGV[6])
return record(known and 'repeated' or 'stored', KEYS[4])
"""
)

NOTE = (
    PUBLISH
    + """
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
publish(ARGV[4], KEYS[2], ARGV[3])
return 'noted'
"""
)


class Outcome(Enum):
    """The outcome of writing a delivery."""

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
        ttl: int = Config.unread_ttl_seconds,
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
            until: Until when another delivery could arrive, in seconds since 1970, even
                after this one was read and forgotten; 0 if that is not known.

        Returns:
            STORED for the first final delivery, REPEATED for the same again, CONFLICT
            for a different one, NOTED for a progress message.

        Raises:
            SinkUnavailable: Redis is unavailable, or no replica has confirmed the
                delivery: repeat it.
            NoAccess: Redis denies access; nothing was stored.
        """
        with redis_errors(self._connection, "store a delivery"):
            if delivery.is_final:
                return await self._store(delivery, body, mark, until)
            return await self._store_progress(delivery)

    async def note_refusal(self, delivery_id: str, text: str) -> None:
        """Tell the task that waits for a delivery why one was refused.

        Args:
            delivery_id: Id of the delivery. The caller has checked that it is one of
                ours, as each id adds a key to Redis.
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
                keys.MOST_KEPT,
                self._publish,
            ],
        )
        return Outcome(answer.decode())


def _record(delivery: Delivery, size: int, now: float) -> str:
    """Return the record of a delivery as JSON; empty for the delivery of a check."""
    if delivery.delivery_id.startswith(keys.CHECK_PREFIX):
        return ""
    return DeliveryRecord(now, delivery.delivery_id, delivery.status, size).to_json()


def digest(delivery: Delivery) -> str:
    """Return a digest that is equal for deliveries with the same contents.

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


class _Call(NamedTuple):
    keys: Sequence[str]
    args: Sequence[Any]
    done: asyncio.Future[Any]

    @property
    def size(self) -> int:
        return sum(len(arg) for arg in self.args if isinstance(arg, (bytes, str)))


class SharedScript:
    """Runs a script for many callers; each gets its own result or error.

    A call runs at once, unless round trips are in progress: then it is part of the next
    one.

    Args:
        client: A connected client; the caller closes it.
        text: The script.
        replicas: Decides by the number of replicas whether a round trip counts as
            stored; None: it always does.
    """

    def __init__(
        self, client: Redis, text: str, replicas: ReplicaCheck | None = None
    ) -> None:
        self._client = client
        self._replicas = replicas
        self._text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._waiting: deque[_Call] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run the script.

        Raises:
            RedisError: Redis is unavailable, or refuses this call.
        """
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(keys, args, done))
        if len(self._tasks) < ROUND_TRIPS_AT_ONCE:
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await done

    async def _run(self) -> None:
        while self._waiting:
            calls = self._take()
            try:
                results = await self._send(calls)
            except Exception as error:  # noqa: BLE001 - each caller gets it
                results = [error] * len(calls)
            except asyncio.CancelledError:
                for call in calls:
                    call.done.cancel()
                raise
            for call, result in zip(calls, results, strict=True):
                if call.done.done():
                    continue  # its caller was cancelled
                if isinstance(result, Exception):
                    call.done.set_exception(result)
                else:
                    call.done.set_result(result)

    def _take(self) -> list[_Call]:
        calls = [self._waiting.popleft()]
        size = calls[0].size
        while self._waiting and len(calls) < MOST_CALLS:
            size += self._waiting[0].size
            if size > MOST_BYTES:
                break
            calls.append(self._waiting.popleft())
        return calls

    async def _send(self, calls: Sequence[_Call]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for number, (keys, args, _) in enumerate(calls):
                # The first one loads the script, which a restarted Redis does not know.
                send = pipeline.evalsha if number else pipeline.eval
                text = self._sha if number else self._text
                send(text, len(keys), *keys, *args)
            if self._replicas is not None:
                pipeline.wait(1, int(REPLICA_WAIT * 1000))
            results: list[Any] = await pipeline.execute(raise_on_error=False)
        error = None if self._replicas is None else self._replicas.error(results.pop())
        if error is None:
            return results
        return [
            result if isinstance(result, Exception) else error for result in results
        ]


class ReplicaCheck:
    """Decides whether what a round trip wrote counts as stored."""

    def __init__(self) -> None:
        self._confirmed_at = -math.inf

    def error(self, replicas: object) -> RedisError | None:
        """Return why it does not count as stored; None if it does.

        Args:
            replicas: What WAIT has answered: how many replicas have it. An error if
                Redis does not allow WAIT.
        """
        now = time.monotonic()
        if isinstance(replicas, int) and replicas > 0:
            self._confirmed_at = now
        elif now - self._confirmed_at < LOST_FOR:
            return RedisError(
                "no replica has confirmed what was written: perhaps another Redis is "
                "becoming the primary. Without a replica, deliveries are accepted "
                f"after {LOST_FOR:.0f} s"
            )
        return None


def publish_command(connection: RedisConnection) -> str:
    """Return the command that publishes in a Redis: the first argument of PUBLISH."""
    return "SPUBLISH" if connection.is_cluster else "PUBLISH"
