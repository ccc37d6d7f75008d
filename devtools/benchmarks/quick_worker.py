# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A worker whose jobs take no time: it takes them from Redis, and delivers at once.

``python -m devtools.benchmarks.quick_worker REDIS_PORT QUEUE``, until it is ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis

from devtools.benchmarks.raw_http import exchange, post_request
from runqy_delivery import Delivery
from runqy_sandbox.asynq.keys import decode, key, task_key

#: Connections to the receiver, and jobs that each takes at once.
CONNECTIONS, AT_ONCE = 16, 20

#: Redis keys of what it has done: a set of the deliveries, and the number of jobs.
DELIVERED, RUNS = "benchmark:delivered", "benchmark:runs"


async def main() -> None:
    """Work until the process is ended."""
    port, queue = int(sys.argv[1]), sys.argv[2]
    async with Redis(port=port) as redis:
        await asyncio.gather(*(_work(redis, queue) for _ in range(CONNECTIONS)))


async def _work(redis: Redis, queue: str) -> None:
    pending = key(queue, "pending")
    reader, writer = None, None
    while True:
        popped: Any = await redis.brpop([pending], timeout=1)
        if popped is None:
            # A server closes a connection that is idle for some seconds.
            if writer is not None:
                writer.close()
                reader, writer = None, None
            continue
        more: Any = await redis.rpop(pending, AT_ONCE - 1)
        ids = [each.decode() for each in (popped[1], *(more or ()))]
        async with redis.pipeline(transaction=False) as pipeline:
            for job_id in ids:
                pipeline.hget(task_key(queue, job_id), "msg")
            messages = await pipeline.execute()
        payloads = [json.loads(decode(each).payload) for each in messages]
        for payload in payloads:
            url = payload["webhook_url"]
            if reader is None or writer is None:
                parts = urlsplit(url)
                reader, writer = await asyncio.open_connection(
                    parts.hostname, parts.port
                )
            delivery = Delivery(payload["task_id"], result={"n": payload["n"]})
            request = post_request(url, delivery.to_json())
            answer = await exchange(reader, writer, request)
            if answer.status != 200:
                raise RuntimeError(f"the receiver answered {answer.status}")
            if answer.closes:
                writer.close()
                reader, writer = None, None
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.sadd(DELIVERED, *(payload["task_id"] for payload in payloads))
            pipeline.incrby(RUNS, len(ids))
            for job_id in ids:
                # Its reverse key stays, as a real worker leaves it.
                pipeline.delete(task_key(queue, job_id))
            await pipeline.execute()


if __name__ == "__main__":
    asyncio.run(main())
