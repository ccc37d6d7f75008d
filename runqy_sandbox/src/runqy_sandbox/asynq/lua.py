# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The state transitions of a task, as Lua scripts, which Redis runs atomically.

A transition out of ``active`` has no effect on a task that is not in the active list,
so that a worker that has lost its lease cannot change the task's new state.
"""

from __future__ import annotations

#: Adds a pending task.
#:
#: Keys: queues, task hash, reverse key, pending. Arguments: queue, id, msg, time in ns.
ENQUEUE = """
if redis.call("EXISTS", KEYS[2]) == 1 then return 0 end
redis.call("SADD", KEYS[1], ARGV[1])
redis.call("HSET", KEYS[2],
  "msg", ARGV[3], "state", "pending", "pending_since", ARGV[4])
redis.call("HSET", KEYS[3], "queue", ARGV[1])
redis.call("LPUSH", KEYS[4], ARGV[2])
return 1
"""

#: Makes a task active that was popped from the pending list.
#:
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

#: Deletes an active task that has ended, and counts it.
#:
#: Keys: task hash, active, lease, counter, counter of the day. Argument: id.
DELETE_ACTIVE = f"""
{_LEAVE_ACTIVE}
redis.call("DEL", KEYS[1])
redis.call("INCR", KEYS[4])
redis.call("INCR", KEYS[5])
return 1
"""

#: Completes or archives an active task, and counts it.
#:
#: Keys: task hash, active, lease, counter, counter of the day, set of the state,
#: reverse key. Arguments: id, state, time, TTL, field, value, ...
FINISH = f"""
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

#: Schedules a retry of an active task.
#:
#: Keys: task hash, active, lease, retry. Arguments: id, msg, time, time of the retry.
RETRY = f"""
{_LEAVE_ACTIVE}
if redis.call("EXISTS", KEYS[1]) == 0 then return 0 end
redis.call("HINCRBY", KEYS[1], "retried", 1)
redis.call("HSET", KEYS[1],
  "msg", ARGV[2], "last_failed_at", ARGV[3], "state", "retry")
redis.call("ZADD", KEYS[4], ARGV[4], ARGV[1])
return 1
"""

#: Makes an active task pending again, as the next one to be taken.
#:
#: Keys: task hash, active, lease, pending. Arguments: id, time in ns.
REQUEUE = f"""
{_LEAVE_ACTIVE}
if redis.call("EXISTS", KEYS[1]) == 0 then return 0 end
redis.call("HSET", KEYS[1], "state", "pending", "pending_since", ARGV[2])
redis.call("RPUSH", KEYS[4], ARGV[1])
return 1
"""

#: Makes the tasks pending whose retry is due.
#:
#: Keys: retry, pending. Arguments: time, prefix of task hashes, time in ns.
ENQUEUE_DUE = """
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

#: Deletes a task; returns 1, or 0 if it is active, or -1 if it does not exist.
#:
#: Keys: task hash, pending, the sorted sets of states. Argument: id.
DELETE = """
local state = redis.call("HGET", KEYS[1], "state")
if not state then return -1 end
if state == "active" then return 0 end
redis.call("DEL", KEYS[1])
redis.call("LREM", KEYS[2], 0, ARGV[1])
for i = 3, #KEYS do redis.call("ZREM", KEYS[i], ARGV[1]) end
return 1
"""
