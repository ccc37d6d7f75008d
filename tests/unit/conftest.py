"""A waiter with a source in memory, and a runqy server in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runqy_provider.waiters.waiter import Waiter
from tests.unit.fake_runqy import FakeRunqy
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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeRunqy:
    """What each RunqyHook asks."""
    server = FakeRunqy()
    server.serve(monkeypatch)
    return server
