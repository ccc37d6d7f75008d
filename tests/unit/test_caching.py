"""Caches: their size, their expiry, and what they do if a reload fails."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from runqy_provider.caching import AsyncTtlCache, ExpiringDict, TtlCache

TTL = 60.0
RETRY_AFTER = 10.0

#: Seconds to wait for a value that does not come.
SHORT = 0.01


class Clock:
    """Replaces ``time.monotonic`` in this process."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the caches, for the test to move."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


class Loader:
    """Counts how often a value is loaded, and with which expired values.

    Attributes:
        error: What loading raises, if anything.
        expired: The expired value that each load received.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.expired: list[int | None] = []

    def __call__(self, expired: int | None) -> int:
        self.expired.append(expired)
        if self.error is not None:
            raise self.error
        return len(self.expired)


def test_expiring_dict_value_expires(clock: Clock) -> None:
    entries: ExpiringDict[int] = ExpiringDict()
    entries.set("a", 1, ttl=5)

    clock.now += 4
    assert entries.get("a") == 1
    assert entries.age_left("a") == 1
    clock.now += 1
    assert entries.get("a") is None
    assert entries.age_left("a") == 0
    assert entries.get_expired("a") == 1
    assert "a" in entries


def test_expiring_dict_unknown_key_is_none(clock: Clock) -> None:
    entries: ExpiringDict[int] = ExpiringDict()

    assert entries.get("a") is None
    assert entries.get_expired("a") is None
    assert entries.age_left("a") < 0
    assert "a" not in entries


def test_expiring_dict_full_drops_oldest_entry(clock: Clock) -> None:
    entries: ExpiringDict[int] = ExpiringDict(max_size=2)
    for number, key in enumerate("abc"):
        entries.set(key, number, ttl=5)

    assert entries.values() == [1, 2]
    assert "a" not in entries


def test_expiring_dict_full_replaces_known_key(clock: Clock) -> None:
    entries: ExpiringDict[int] = ExpiringDict(max_size=2)
    for number, key in enumerate("abb"):
        entries.set(key, number, ttl=5)

    assert entries.values() == [0, 2]


def test_expiring_dict_clear_drops_all(clock: Clock) -> None:
    entries: ExpiringDict[int] = ExpiringDict()
    entries.set("a", 1, ttl=5)
    entries.clear()

    assert entries.values() == []
    assert entries.get_expired("a") is None


def test_ttl_cache_many_threads_load_once() -> None:
    cache: TtlCache[int] = TtlCache(TTL, RETRY_AFTER)
    barrier, loads = threading.Barrier(8), Loader()

    def get(_: int) -> int:
        barrier.wait(10)
        return cache.get("key", loads)

    with ThreadPoolExecutor(8) as threads:
        values = list(threads.map(get, range(8)))

    assert values == [1] * 8
    assert loads.expired == [None]


def test_ttl_cache_after_ttl_is_loaded_again(clock: Clock) -> None:
    cache: TtlCache[int] = TtlCache(TTL, RETRY_AFTER)
    load = Loader()

    assert cache.get("key", load) == 1
    clock.now += TTL - 1
    assert cache.get("key", load) == 1
    clock.now += 1
    assert cache.get("key", load) == 2
    assert load.expired == [None, 1]
    assert cache.values() == [2]


def test_ttl_cache_reload_fails_expired_value_is_used_until_retry(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    cache: TtlCache[int] = TtlCache(TTL, RETRY_AFTER)
    load = Loader()
    cache.get("The engine of 'pg'", load)
    clock.now += TTL
    load.error = LookupError("password=secret")

    assert cache.get("The engine of 'pg'", load) == 1
    clock.now += RETRY_AFTER - 1
    assert cache.get("The engine of 'pg'", load) == 1
    assert len(load.expired) == 2, "it is not loaded before retry_after has passed"

    load.error = None
    clock.now += 1
    assert cache.get("The engine of 'pg'", load) == 3
    (record,) = caplog.records
    message = record.getMessage()
    assert "The engine of 'pg' could not be loaded again (LookupError)" in message
    assert "will retry in 10 s" in message
    assert "secret" not in message


def test_ttl_cache_first_load_fails_raises_and_keeps_nothing(clock: Clock) -> None:
    cache: TtlCache[int] = TtlCache(TTL, RETRY_AFTER)
    load = Loader()
    load.error = LookupError("not found")
    with pytest.raises(LookupError, match="not found"):
        cache.get("key", load)

    load.error = None
    assert cache.get("key", load) == 2


def test_ttl_cache_clear_loads_again(clock: Clock) -> None:
    cache: TtlCache[int] = TtlCache(TTL, RETRY_AFTER)
    load = Loader()
    cache.get("key", load)
    cache.clear()

    assert cache.get("key", load) == 2
    assert load.expired == [None, None], "a dropped value is not an expired one"


class AsyncLoader:
    """Counts loads; each waits until the test releases it."""

    def __init__(self) -> None:
        self.loads = 0
        self.released = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> tuple[int, float]:
        self.loads += 1
        number = self.loads
        await self.released.wait()
        if self.error is not None:
            raise self.error
        return number, TTL


async def test_async_ttl_cache_concurrent_callers_load_once() -> None:
    cache: AsyncTtlCache[int] = AsyncTtlCache()
    load = AsyncLoader()
    callers = [asyncio.create_task(cache.get("key", load)) for _ in range(10)]
    await asyncio.sleep(0)
    load.released.set()

    assert await asyncio.gather(*callers) == [1] * 10
    assert load.loads == 1


async def test_async_ttl_cache_slow_key_does_not_delay_others() -> None:
    cache: AsyncTtlCache[int] = AsyncTtlCache()
    slow, quick = AsyncLoader(), AsyncLoader()
    quick.released.set()
    waiting = asyncio.create_task(cache.get("slow", slow))
    await asyncio.sleep(0)

    assert await cache.get("quick", quick) == 1
    assert not waiting.done()
    slow.released.set()
    assert await waiting == 1


async def test_async_ttl_cache_load_fails_next_caller_loads_again() -> None:
    cache: AsyncTtlCache[int] = AsyncTtlCache()
    load = AsyncLoader()
    load.released.set()
    load.error = LookupError("not found")
    with pytest.raises(LookupError):
        await cache.get("key", load)

    load.error = None
    assert await cache.get("key", load) == 2


def test_async_ttl_cache_is_usable_in_several_event_loops() -> None:
    cache: AsyncTtlCache[int] = AsyncTtlCache()

    async def get() -> list[int]:
        load = AsyncLoader()
        callers = [asyncio.create_task(cache.get("key", load)) for _ in range(2)]
        await asyncio.sleep(0)
        load.released.set()
        return await asyncio.gather(*callers)

    for _ in range(2):
        assert asyncio.run(get()) == [1, 1]
        cache.clear()


async def test_async_ttl_cache_slow_value_is_returned_by_a_later_call() -> None:
    cache: AsyncTtlCache[int] = AsyncTtlCache()
    load = AsyncLoader()
    assert await cache.get_soon("key", load, SHORT) is None
    assert await cache.get_soon("key", load, SHORT) is None
    load.released.set()

    assert await cache.get("key", load) == 1
    assert await cache.get_soon("key", load, SHORT) == 1
    assert load.loads == 1


@pytest.mark.parametrize(("max_stale", "known"), [(60.0, 7), (0.0, None)])
async def test_async_ttl_cache_expired_value_is_known_for_a_while(
    max_stale: float, known: int | None
) -> None:
    cache: AsyncTtlCache[int] = AsyncTtlCache(max_stale)
    load = AsyncLoader()

    async def expired() -> tuple[int, float]:
        return 7, 0.0

    assert await cache.get("key", expired) == 7
    assert await cache.get_soon("key", load, SHORT) == known
    load.released.set()
    assert await cache.get("key", load) == 1


async def test_async_ttl_cache_caller_cancelled_load_goes_on_for_others() -> None:
    cache: AsyncTtlCache[int] = AsyncTtlCache()
    load = AsyncLoader()
    first = asyncio.create_task(cache.get("key", load))
    second = asyncio.create_task(cache.get("key", load))
    await asyncio.sleep(0)
    first.cancel()
    load.released.set()

    assert await second == 1
    assert load.loads == 1


async def test_async_ttl_cache_close_stops_what_is_loaded() -> None:
    cache: AsyncTtlCache[int] = AsyncTtlCache()
    waiting = asyncio.create_task(cache.get("key", AsyncLoader()))
    await asyncio.sleep(0)
    await cache.aclose()

    with pytest.raises(asyncio.CancelledError):
        await waiting
