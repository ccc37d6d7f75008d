# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The steps of a task's life in Redis, each one script: all of it or none of it.

A step out of `active` does nothing for a task that is no longer there, so a worker
that lost its lease cannot undo what came after.
"""

from __future__ import annotations

#: Keys: queues, task hash, reverse key, pending. Arguments: queue, id, msg, ns.
ENQUEUE = """
if redis.call("EXISTS", KEYS[2]) == 1 then return 0 end
redis.call("SADD", KEYS[1], ARGV[1])
redis.call("HSET", KEYS[2],
  "msg", ARGV[3], "state", "pending", "pending_since", ARGV[4])
redis.call("HSET", KEYS[3], "queue", ARGV[1])
redis.call("LPUSH", KEYS[4], ARGV[2])
return 1
"""

#: Keys: task hash, active, lease. Arguments: id, end of the lease.
ACTIVATE = """
if redis.call("EXISTS", KEYS[1]) == 0 then return false end
redis.call("LPUSH", KEYS[2], ARGV[1])
redis.call("ZADD", KEYS[3], ARGV[2], ARGV[1])
redis.call("HSET", KEYS[1], "state", "active")
redis.call("HDEL", KEYS[1], "pending_since")
return redis.call("HMGET", KEYS[1], "msg", "retried")
"""

_LEAVE_ACTIVE = """
redis.call("ZREM", KEYS[3], ARGV[1])
if redis.call("LREM", KEYS[2], 1, ARGV[1]) == 0 then return 0 end
"""

#: Keys: task hash, active, lease, counter, counter of the day. Argument: id.
FORGET = f"""
{_LEAVE_ACTIVE}
redis.call("DEL", KEYS[1])
redis.call("INCR", KEYS[4])
redis.call("INCR", KEYS[5])
return 1
"""

#: Keys: task hash, active, lease, counter, counter of the day, set of the state,
#: reverse key. Arguments: id, state, now, time to live, field, value, ...
KEEP = f"""
{_LEAVE_ACTIVE}
if redis.call("EXISTS", KEYS[1]) == 0 then return 0 end
redis.call("HSET", KEYS[1], "state", ARGV[2])
for i = 5, #ARGV, 2 do redis.call("HSET", KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call("ZADD", KEYS[6], ARGV[3], ARGV[1])
redis.call("EXPIRE", KEYS[1], ARGV[4])
redis.call("EXPIRE", KEYS[7], ARGV[4])
redis.call("INCR", KEYS[4])
redis.call("INCR", KEYS[5])
return 1
"""

#: Keys: task hash, active, lease, retry. Arguments: id, msg, now, due.
RETRY = f"""
{_LEAVE_ACTIVE}
if redis.call("EXISTS", KEYS[1]) == 0 then return 0 end
redis.call("HINCRBY", KEYS[1], "retried", 1)
redis.call("HSET", KEYS[1],
  "msg", ARGV[2], "last_failed_at", ARGV[3], "state", "retry")
redis.call("ZADD", KEYS[4], ARGV[4], ARGV[1])
return 1
"""

#: Keys: task hash, active, lease, pending. Arguments: id, ns.
GIVE_BACK = f"""
{_LEAVE_ACTIVE}
if redis.call("EXISTS", KEYS[1]) == 0 then return 0 end
redis.call("HSET", KEYS[1], "state", "pending", "pending_since", ARGV[2])
redis.call("RPUSH", KEYS[4], ARGV[1])
return 1
"""

#: Keys: retry, pending. Arguments: now, prefix of task hashes, ns.
FORWARD = """
local due = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", ARGV[1])
for _, id in ipairs(due) do
  redis.call("ZREM", KEYS[1], id)
  if redis.call("EXISTS", ARGV[2] .. id) == 1 then
    redis.call("HSET", ARGV[2] .. id, "state", "pending", "pending_since", ARGV[3])
    redis.call("LPUSH", KEYS[2], id)
  end
end
return #due
"""

#: Keys: task hash, pending, then the sorted sets of states. Argument: id.
DELETE = """
local state = redis.call("HGET", KEYS[1], "state")
if not state then return -1 end
if state == "active" then return 0 end
redis.call("DEL", KEYS[1])
redis.call("LREM", KEYS[2], 0, ARGV[1])
for i = 3, #KEYS do redis.call("ZREM", KEYS[i], ARGV[1]) end
return 1
"""
