# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read the deliveries of a channel, each at least once.

A ``ChannelReader`` reads them for a trigger, which makes events of them. An event is
only a hint: a ``ChannelTaker`` takes deliveries for the task that works on them, and
the reader looks for deliveries that no task has taken or acknowledged.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from redis.exceptions import ResponseError

from runqy_delivery.wire import COMPLETED
from runqy_provider.errors import RunqyError
from runqy_provider.inbox import keys
from runqy_provider.inbox.callback_url import channel_of
from runqy_provider.redis_client import async_client, client, redis_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

    from runqy_delivery import Delivery
    from runqy_provider.redis_connection import RedisConnection

#: Metadata with more characters than this, as JSON, are left out of an event.
LONGEST_METADATA = 16_384

#: The longest message of a failure in an event, in characters.
LONGEST_ERROR = 2000

#: Milliseconds for which Redis delays its answer while nothing arrives.
BLOCK = 5000

#: The most deliveries of one read.
ENTRIES_PER_READ = 100

#: Seconds after which deliveries that were taken and not acknowledged are taken by
#: others. A live attempt confirms three times in between that it still has them.
HELD_FOR = 600.0

#: Prefix of the names of groups whose readers are tasks.
TAKERS = "take:"

#: One delivery of a channel: its id in the stream, and its event.
Entry = tuple[str, dict[str, Any]]

log = logging.getLogger(__name__)

# Take the deliveries of a channel for one consumer (a group of readers) and one attempt
# (a reader in it): first what the attempt holds already, then what others have not
# acknowledged for ARGV[3] milliseconds, then what was not taken yet. An entry that was
# removed from the stream cannot be taken: it counts as acknowledged. Redis 6 returns
# such an entry only with JUSTID, and if an attempt reads what it holds.
TAKE = """
local key, group, attempt, most = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[4])
if #redis.call('XRANGE', key, '-', '+', 'COUNT', 1) == 0 then return {} end
local made = redis.pcall('XGROUP', 'CREATE', key, group, '0')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
local function read(from, count)
  if count < 1 then return {} end
  local answer = redis.call('XREADGROUP', 'GROUP', group, attempt, 'COUNT', count,
                            'STREAMS', key, from)
  return answer and answer[1][2] or {}
end
local function held()
  while true do
    local found, removed = {}, 0
    for _, entry in ipairs(read('0', most)) do
      if entry[2] then
        table.insert(found, entry)
      else
        removed = removed + redis.call('XACK', key, group, entry[1])
      end
    end
    if removed == 0 then return found end
  end
end
local found = held()
local at, room = '0-0', most - #found
while room > 0 do
  local answer = redis.call('XAUTOCLAIM', key, group, attempt, ARGV[3], at,
                            'COUNT', room, 'JUSTID')
  at, room = answer[1], room - #answer[2]
  if at == '0-0' then break end
end
found = held()
for _, entry in ipairs(read('>', most - #found)) do table.insert(found, entry) end
if #found == 0 then redis.call('XGROUP', 'DELCONSUMER', key, group, attempt) end
return found
"""

# When an attempt reads what it holds, Redis resets the idle time of these entries.
HOLD = """
local at = '0'
while true do
  local answer = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 1000,
                            'STREAMS', KEYS[1], at)
  local entries = answer and answer[1][2] or {}
  if #entries == 0 then return at end
  at = entries[#entries][1]
end
"""

# An attempt that holds nothing is removed; one that holds something must not be: what
# it holds would count as acknowledged.
ACKNOWLEDGE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return end
for n = 3, #ARGV do redis.call('XACK', KEYS[1], ARGV[1], ARGV[n]) end
local left = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if not left.err and #left == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
"""


class Leftover(NamedTuple):
    """A delivery that a consumer should have taken, or acknowledged, by now.

    Attributes:
        consumer: The consumer.
        mark: What stays the same while that consumer makes no progress.
        entry: The delivery.
    """

    consumer: str
    mark: str
    entry: Entry


class ChannelReader:
    """Reads one channel for one group of readers, which shares what it has read.

    Args:
        redis: The Redis of the inbox.
        namespace: The namespace; see ``keys``.
        channel: The channel.
        group: Name of the group: each group reads all deliveries.
    """

    def __init__(
        self, redis: RedisConnection, namespace: str, channel: str, group: str
    ) -> None:
        self._connection = redis.for_namespace(namespace)
        self._key = keys.channel(redis.in_keys(namespace), channel)
        self._group = group
        self._consumer = uuid.uuid4().hex
        self._client: Redis = async_client(self._connection, most_connections=2)
        self._is_open = False

    async def read(self) -> list[Entry]:
        """Return deliveries that came; first those that were never acknowledged.

        Returns:
            An empty list if none came for some seconds.

        Raises:
            SinkUnavailable: Redis is unavailable.
            NoAccess: It denies access.
        """
        with redis_errors(self._connection, "read a channel"):
            if not self._is_open and (left := await self._open()):
                return left
            try:
                found: Any = await self._client.xreadgroup(
                    self._group,
                    self._consumer,
                    {self._key: ">"},
                    count=ENTRIES_PER_READ,
                    block=BLOCK,
                )
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                # The stream expired, as nothing was delivered for a long time.
                self._is_open = False
                return []
        return [entry for _, entries in found for entry in _entries(entries)]

    async def acknowledge(self, entry_ids: Sequence[str]) -> None:
        """Record that deliveries are handled, so that they are not read again.

        Raises:
            SinkUnavailable: Redis is unavailable.
        """
        with redis_errors(self._connection, "acknowledge deliveries"):
            await self._client.xack(self._key, self._group, *entry_ids)

    async def leftovers(
        self, is_wanted: Callable[[dict[str, Any]], bool], ttl: float
    ) -> list[Leftover]:
        """Return the oldest delivery that the tasks of each consumer have left.

        Args:
            is_wanted: Whether the event of a delivery is of interest.
            ttl: A consumer that has taken nothing for so many seconds, although
                deliveries were waiting, counts as gone.

        Raises:
            SinkUnavailable: Redis is unavailable.
            NoAccess: It denies access.
        """
        with redis_errors(self._connection, "look what is left on a channel"):
            newest: Any = await self._client.xrevrange(self._key, count=1)
            if not newest:
                return []
            groups: Any = await self._client.xinfo_groups(self._key)
            found = []
            for group in groups:
                name, last = group["name"].decode(), group["last-delivered-id"]
                age = _milliseconds(newest[0][0]) - _milliseconds(last)
                if name.startswith(TAKERS) and age <= ttl * 1000:
                    found += await self._left_by(name, last, is_wanted)
        return found

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _left_by(
        self, group: str, last: bytes, is_wanted: Callable[[dict[str, Any]], bool]
    ) -> list[Leftover]:
        held: Any = await self._client.xpending_range(
            self._key, group, "-", "+", ENTRIES_PER_READ, idle=int(HELD_FOR * 1000)
        )
        ids = [row["message_id"] for row in held]
        for start, end in [*((each, each) for each in ids), (b"(" + last, b"+")]:
            rows: Any = await self._client.xrange(
                self._key, start, end, ENTRIES_PER_READ
            )
            for entry in _entries(rows):
                if is_wanted(entry[1]):
                    mark = f"{start.decode()} {end.decode()}"
                    return [Leftover(group.removeprefix(TAKERS), mark, entry)]
        return []

    async def _open(self) -> list[Entry]:
        """Join the group, and take over what another reader has not acknowledged."""
        try:
            await self._client.xgroup_create(
                self._key, self._group, id="0", mkstream=True
            )
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._is_open = True
        found: list[Entry] = []
        start = b"0-0"
        while True:
            answer: Any = await self._client.xautoclaim(
                self._key, self._group, self._consumer, 0, start, count=ENTRIES_PER_READ
            )
            start = answer[0]
            found += _entries(answer[1])
            if start == b"0-0":
                return found


class ChannelTaker:
    """Takes the deliveries of one channel for one attempt of a task.

    Args:
        redis: The Redis of the inbox.
        namespace: The namespace; see ``keys``.
        channel: The channel.
        consumer: For whom deliveries are taken: each consumer gets all of them, once.
        attempt: The task instance: all tries of it share what they hold.
    """

    def __init__(
        self,
        redis: RedisConnection,
        namespace: str,
        channel: str,
        consumer: str,
        attempt: str,
    ) -> None:
        self._connection = redis.for_namespace(namespace)
        self._key = keys.channel(redis.in_keys(namespace), channel)
        self._group = f"{TAKERS}{consumer}"
        self._attempt = attempt
        self._client = client(self._connection)
        self._ended = threading.Event()
        self._holding: threading.Thread | None = None

    def take(self, most: int, *, with_failures: bool) -> list[Entry]:
        """Return the deliveries that the attempt now holds, the oldest first.

        Args:
            most: How many it may hold.
            with_failures: Whether failed jobs are of interest; else they count as
                acknowledged.

        Raises:
            SinkUnavailable: Redis is unavailable.
            NoAccess: It denies access.
        """
        while True:
            with redis_errors(self._connection, "take from a channel"):
                rows = self._run(TAKE, int(HELD_FOR * 1000), most)
            entries = _entries((row[0], _fields(row[1])) for row in rows)
            unwanted = [
                entry_id
                for entry_id, event in entries
                if not with_failures and event["status"] != COMPLETED
            ]
            if not unwanted:
                return entries
            self.acknowledge(unwanted)

    def acknowledge(self, entry_ids: Sequence[str]) -> None:
        """Record that deliveries were processed, so that they are not taken again.

        Raises:
            SinkUnavailable: Redis is unavailable.
            NoAccess: It denies access.
        """
        with redis_errors(self._connection, "acknowledge deliveries"):
            self._run(ACKNOWLEDGE, *entry_ids)

    def hold(self) -> None:
        """Let no other take what the attempt holds, as long as its process lives."""
        self._holding = threading.Thread(
            target=self._hold, name="runqy-channel", daemon=True
        )
        self._holding.start()

    def close(self) -> None:
        """Stop holding deliveries, and close the connections."""
        self._ended.set()
        if self._holding is not None:
            self._holding.join()
        self._client.close()

    def _hold(self) -> None:
        while not self._ended.wait(HELD_FOR / 3):
            try:
                with redis_errors(self._connection, "hold deliveries"):
                    self._run(HOLD)
            except RunqyError as error:
                log.warning("Other runs may take the same deliveries: %s", error)

    def _run(self, script: str, *args: str | int) -> Any:
        return self._client.eval(
            script,
            1,
            self._key,
            self._group,
            self._attempt,
            *args,
        )


def _fields(pairs: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def _milliseconds(entry_id: bytes) -> int:
    return int(entry_id.split(b"-")[0])


def _entries(rows: Any) -> list[Entry]:
    """Return entries of a stream; those that were deleted meanwhile are left out."""
    return [
        (cast("bytes", entry_id).decode(), json.loads(fields[b"event"]))
        for entry_id, fields in rows
        if fields
    ]


def event_of(delivery: Delivery, size: int, conn_id: str, at: float) -> dict[str, Any]:
    """Return what a DAG gets of a delivery, as plain JSON without its result.

    Args:
        delivery: The delivery.
        size: Size of its body, in bytes.
        conn_id: The runqy connection whose webhook it came by.
        at: When it arrived, in seconds since 1970.
    """
    event: dict[str, Any] = {
        "delivery_id": delivery.delivery_id,
        "channel": channel_of(delivery.delivery_id),
        "status": delivery.status,
        "delivered_at": at,
    }
    if delivery.error is not None:
        event["error"] = delivery.error.message[:LONGEST_ERROR]
        return event
    metadata = delivery.metadata
    if metadata is not None and len(json.dumps(metadata)) > LONGEST_METADATA:
        metadata = None
    event["reference"] = {
        "uri": delivery.result_url or keys.delivery_uri(conn_id, delivery.delivery_id),
        "content_type": delivery.content_type or "application/json",
        "size": size if delivery.size is None else delivery.size,
        "delivery_id": delivery.delivery_id,
        "metadata": metadata,
        "runqy_conn_id": conn_id,
    }
    return event
