"""Each rejected delivery of a known connection is counted, with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from runqy_provider.receiver.app import create_app
from tests.integration.receiver.constants import GOOD, LIMITS, Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_provider.receiver.connections import CallbackConnection

#: Another final delivery of the same job.
OTHER = b'{"task_id": "d", "status": "completed", "result": "other"}'


async def test_receiver_rejections_are_counted_by_reason(
    connections: dict[str, CallbackConnection], url: Callable[..., str]
) -> None:
    async def find(conn_id: str, *, refresh: bool = False) -> CallbackConnection | None:
        return connections.get(conn_id)

    reasons: list[str] = []
    app = create_app(find, LIMITS, reasons.append)
    async with (
        app.router.lifespan_context(app),
        Client(transport=httpx.ASGITransport(app), base_url="http://r") as client,
    ):
        await client.post(url(), content=GOOD)
        await client.post(url(), content=OTHER)
        await client.post(url(secret="f" * 32), content=GOOD)
        await client.post(url(), content=b"not json")
        await client.post(url(conn="unknown"), content=GOOD)

    assert reasons == ["conflict", "bad token or expired", "not a delivery"]
