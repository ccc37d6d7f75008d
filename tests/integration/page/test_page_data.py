"""How old what the page shows may be."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from runqy_provider.plugins.page import data

if TYPE_CHECKING:
    import pytest


async def test_page_data_time_of_check_is_not_after_that_of_its_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A part that was asked for with old settings does not count as new."""
    current, slow = "old settings", asyncio.Event()

    async def load_connection(_conn_id: str) -> Any:
        loaded = current
        if slow.is_set():
            await asyncio.sleep(2 * data.WAIT_LIMIT)
        return [loaded]

    async def look(settings: Any) -> dict[str, Any]:
        return {"seen": settings[0]}

    monkeypatch.setattr(data, "load_connection", load_connection)
    monkeypatch.setattr(data, "PARTS", {"server": look})
    monkeypatch.setattr(data, "LOOK_TTL", 0.0)
    page = data.PageData()
    [view] = await page.look_at(["x"])
    assert view["seen"] == "old settings"
    slow.set()
    current, changed_at = "new settings", time.time()

    views: list[dict[str, Any]] = []
    while not views or views[-1]["checked_at"] <= changed_at:
        views += await page.look_at(["x"])

    # While the settings are loaded, the old ones are shown, and say how old they are.
    assert views[0]["seen"] == "old settings"
    assert views[-1]["seen"] == "new settings"
    await page.aclose()
