"""A script that many callers share: one round trip, and a result for each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import RedisError, ResponseError

from runqy_provider.inbox.writer import MOST_BYTES, MOST_CALLS, SharedScript
from runqy_provider.redis_client import async_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runqy_provider.redis_connection import RedisConnection

#: Adds up, or fails if the key holds no number.
SCRIPT = "return redis.call('INCRBY', KEYS[1], #ARGV[1])"


@pytest.fixture
async def client(redis_settings: RedisConnection) -> AsyncIterator[Any]:
    client = async_client(redis_settings, most_connections=4)
    yield client
    await client.aclose()


class Counting:
    """A client that counts its pipelines."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.pipelines = 0

    def __getattr__(self, name: str) -> Any:
        if name == "pipeline":
            self.pipelines += 1
        return getattr(self._client, name)


async def test_shared_script_callers_share_round_trips(
    client: Any, conn_id: str
) -> None:
    counting: Any = Counting(client)
    script = SharedScript(counting, SCRIPT)
    calls = [script([f"{conn_id}:{n % 7}"], ["x"]) for n in range(MOST_CALLS)]
    results = await asyncio.gather(*calls)

    assert len(results) == MOST_CALLS
    assert await client.get(f"{conn_id}:0") == b"15"
    assert counting.pipelines <= 4, "one for the first caller, and one for the others"


async def test_shared_script_each_caller_gets_its_own_error(
    client: Any, conn_id: str
) -> None:
    await client.set(f"{conn_id}:text", "not a number")
    script = SharedScript(client, SCRIPT)
    results: Any = await asyncio.gather(
        script([f"{conn_id}:a"], ["x"]),
        script([f"{conn_id}:text"], ["x"]),
        script([f"{conn_id}:b"], ["xx"]),
        return_exceptions=True,
    )

    assert (results[0], results[2]) == (1, 2)
    assert isinstance(results[1], ResponseError)


async def test_shared_script_unknown_to_a_restarted_redis_is_loaded_again(
    client: Any, conn_id: str
) -> None:
    script = SharedScript(client, SCRIPT)
    assert await script([f"{conn_id}:n"], ["x"]) == 1
    await client.script_flush()
    results = await asyncio.gather(*(script([f"{conn_id}:n"], ["x"]) for _ in range(5)))

    assert sorted(results) == [2, 3, 4, 5, 6], "each ran once"


async def test_shared_script_large_arguments_do_not_hold_others_back(
    client: Any, conn_id: str
) -> None:
    counting: Any = Counting(client)
    script = SharedScript(counting, SCRIPT)
    large = b"x" * MOST_BYTES
    await asyncio.gather(*(script([f"{conn_id}:l"], [large]) for _ in range(4)))

    assert counting.pipelines >= 4


async def test_shared_script_redis_unavailable_reaches_every_caller(
    unreachable_redis: RedisConnection,
) -> None:
    client = async_client(unreachable_redis, most_connections=2)
    script = SharedScript(client, SCRIPT)
    results = await asyncio.gather(
        *(script(["k"], ["x"]) for _ in range(20)), return_exceptions=True
    )
    await client.aclose()

    assert all(isinstance(result, RedisError) for result in results)


async def test_shared_script_cancelled_caller_does_not_stop_others(
    client: Any, conn_id: str
) -> None:
    script = SharedScript(client, SCRIPT)
    calls = [asyncio.ensure_future(script([f"{conn_id}:c"], ["x"])) for _ in range(9)]
    await asyncio.sleep(0)
    calls[0].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)

    assert isinstance(results[0], asyncio.CancelledError)
    assert all(isinstance(result, int) for result in results[1:])
