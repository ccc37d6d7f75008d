"""A waiter with a source in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runqy_provider.waiters.waiter import Waiter
from tests.unit.waiter_source import LONG, FakeSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def source() -> FakeSource:
    """The source of ``waiter``."""
    return FakeSource()


@pytest.fixture
async def waiter(source: FakeSource) -> AsyncIterator[Waiter]:
    """A waiter that polls at hints only, in the time that a test takes."""
    waiter = Waiter(source, interval=LONG)
    yield waiter
    await waiter.aclose()
