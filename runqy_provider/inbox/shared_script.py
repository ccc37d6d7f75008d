# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Run a script for many callers at once: all who wait share the next round trip."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import NoScriptError

from runqy_provider.inbox.replicas import REPLICA_WAIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from runqy_provider.inbox.replicas import ReplicaCheck

#: Round trips at once: where one connection hangs, another goes on.
AT_ONCE = 2

#: The most calls of one round trip, and the most bytes of their arguments, so that a
#: large body does not keep many others waiting.
MOST_CALLS = 100
MOST_BYTES = 1024 * 1024


class _Call(NamedTuple):
    keys: Sequence[str]
    args: Sequence[Any]
    done: asyncio.Future[Any]

    @property
    def size(self) -> int:
        return sum(len(arg) for arg in self.args if isinstance(arg, (bytes, str)))


class SharedScript:
    """A script that is run for many callers; each gets its own result or error.

    A call waits for no other, unless round trips are under way: then it is part of the
    next one.

    Args:
        client: A connected client; the caller closes it.
        text: The script.
        replicas: Decides whether a round trip counts, by how many replicas have what
            it wrote; None: it always does.
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
        if len(self._tasks) < AT_ONCE:
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
        results = await self._evaluate(calls)
        unknown = [
            number
            for number, result in enumerate(results)
            if isinstance(result, NoScriptError)
        ]
        if unknown:
            # Redis has been restarted, or has failed over.
            again = await self._evaluate(
                [calls[number] for number in unknown], loads=True
            )
            for number, result in zip(unknown, again, strict=True):
                results[number] = result
        return results

    async def _evaluate(
        self, calls: Sequence[_Call], *, loads: bool = False
    ) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for number, (keys, args, _) in enumerate(calls):
                if loads and number == 0:
                    # Redis remembers the script for those that follow.
                    pipeline.eval(self._text, len(keys), *keys, *args)
                else:
                    pipeline.evalsha(self._sha, len(keys), *keys, *args)
            if self._replicas is not None:
                pipeline.wait(1, int(REPLICA_WAIT * 1000))
            results: list[Any] = await pipeline.execute(raise_on_error=False)
        if self._replicas is None:
            return results
        error = self._replicas.error(results.pop())
        if error is None:
            return results
        return [
            result if isinstance(result, Exception) else error for result in results
        ]
