"""Values that are loaded in the background."""

from __future__ import annotations

import asyncio

import pytest

from runqy_provider.plugins.page.latest import LatestValues


async def test_latest_values_slow_value_is_returned_by_a_later_call() -> None:
    gate = asyncio.Event()
    loads = 0

    async def load() -> str:
        nonlocal loads
        loads += 1
        await gate.wait()
        return "value"

    values: LatestValues[str] = LatestValues(ttl=60, wait_limit=0.01)
    assert await values.get("key", load) is None
    assert await values.get("key", load) is None
    gate.set()
    while await values.get("key", load) is None:
        await asyncio.sleep(0)

    assert await values.get("key", load) == "value"
    assert loads == 1


async def test_latest_values_expired_value_is_returned_while_it_is_loaded() -> None:
    gate = asyncio.Event()

    async def first() -> str:
        return "old"

    async def second() -> str:
        await gate.wait()
        return "new"

    values: LatestValues[str] = LatestValues(ttl=0, wait_limit=0.01)
    assert await values.get("key", first) == "old"
    assert await values.get("key", second) == "old"
    gate.set()
    assert await values.get("key", second) == "new"


async def test_latest_values_error_is_raised_and_the_next_call_loads_again() -> None:
    async def fail() -> str:
        raise LookupError

    async def load() -> str:
        return "value"

    values: LatestValues[str] = LatestValues(ttl=60, wait_limit=60)
    with pytest.raises(LookupError):
        await values.get("key", fail)
    assert await values.get("key", load) == "value"


async def test_latest_values_close_stops_what_is_loaded() -> None:
    cancelled = asyncio.Event()

    async def load() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    values: LatestValues[str] = LatestValues(ttl=60, wait_limit=0.01)
    await values.get("key", load)
    await values.aclose()

    assert cancelled.is_set()


async def test_latest_values_dropped_key_is_loaded_again() -> None:
    results = iter(["first", "second"])

    async def load() -> str:
        return next(results)

    values: LatestValues[str] = LatestValues(ttl=60, wait_limit=60)
    assert await values.get("key", load) == "first"
    values.keep_only({"another"})
    assert await values.get("key", load) == "second"
