# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The scripts that write to the inbox, and announce what they wrote.

In a cluster, all nodes pass on each message of a plain channel. A message of a sharded
channel stays on the nodes of its slot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runqy_provider.connections import RedisConnection

#: A function for scripts. Redis 6 has no REDIS_VERSION_NUM, and no sharded channels.
PUBLISH = """
local function publish(command, channel, message)
  if not redis.REDIS_VERSION_NUM then command = 'PUBLISH' end
  redis.call(command, channel, message)
end
"""

# One script, so that of two deliveries at once exactly one is first. A repetition is
# published again: the first message may have been missed. The event of a channel comes
# first: should the script fail after it, the sender tries again, and the event comes
# twice, not never. The record is written with pcall: a Redis that denies it must not
# refuse the delivery.
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


def publish_command(connection: RedisConnection) -> str:
    """Return the command that publishes in a Redis: the first argument of PUBLISH."""
    return "SPUBLISH" if connection.is_cluster else "PUBLISH"
