"""Values that are loaded in the background."""

from __future__ import annotations

import asyncio

import pytest

from runqy_provider.plugins.page import data
from runqy_provider.plugins.page.data import LatestValues

#: Seconds that are over in no test.
LONG = 60.0

#: Seconds to wait for a value that does not come.
SHORT = 0.01


async def test_latest_values_slow_value_is_returned_by_a_later_call() -> None:
    gate = asyncio.Event()
    loads = 0

    async def load() -> str:
        nonlocal loads
        loads += 1
        await gate.wait()
        return "value"

    values = LatestValues()
    assert await values.get("key", load, LONG, SHORT) is None
    assert await values.get("key", load, LONG, SHORT) is None
    gate.set()

    assert await values.get("key", load, LONG) == "value"
    assert await values.get("key", load, LONG) == "value"
    assert loads == 1


async def test_latest_values_expired_value_is_returned_while_it_is_loaded() -> None:
    gate = asyncio.Event()

    async def first() -> str:
        return "old"

    async def second() -> str:
        await gate.wait()
        return "new"

    values = LatestValues()
    assert await values.get("key", first, 0) == "old"
    assert await values.get("key", second, 0, SHORT) == "old"
    gate.set()
    assert await values.get("key", second, 0) == "new"


async def test_latest_values_old_value_is_not_known_while_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def first() -> str:
        return "old"

    async def second() -> str:
        await asyncio.Event().wait()
        return ""

    values = LatestValues()
    assert await values.get("key", first, LONG) == "old"
    monkeypatch.setattr(data, "MAX_AGE", 0)

    assert await values.get("key", second, 0, SHORT) is None
    await values.aclose()


async def test_latest_values_error_is_raised_and_the_next_call_loads_again() -> None:
    async def fail() -> str:
        raise LookupError

    async def load() -> str:
        return "value"

    values = LatestValues()
    with pytest.raises(LookupError):
        await values.get("key", fail, LONG)
    assert await values.get("key", load, LONG) == "value"


async def test_latest_values_close_stops_what_is_loaded() -> None:
    cancelled = asyncio.Event()

    async def load() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    values = LatestValues()
    await values.get("key", load, LONG, SHORT)
    await values.aclose()

    assert cancelled.is_set()
