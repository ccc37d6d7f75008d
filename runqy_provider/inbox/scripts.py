# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The scripts that write to the inbox, and those that take from a channel.

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
# refuse the delivery. So is what removes events as old as the deliveries that expire.
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

# Take the deliveries of a channel for one consumer (a group of readers) and one attempt
# (a reader in it): first what the attempt holds already, then what others have not
# acknowledged for ARGV[3] milliseconds, then what nobody has taken. An entry that was
# removed from the stream cannot be taken: it counts as acknowledged. Redis 6 names such
# an entry only with JUSTID, and where an attempt reads what it holds.
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

# Reading what it holds makes the time new since when an attempt holds it.
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


def publish_command(connection: RedisConnection) -> str:
    """Return the command that publishes in a Redis: the first argument of PUBLISH."""
    return "SPUBLISH" if connection.is_cluster else "PUBLISH"
