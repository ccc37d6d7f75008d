# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""An HTTP endpoint that does a receiver's writes in Redis, and nothing else.

It is what a receiver is measured against: it checks no token, reads no body and keeps
no limits. ``RUNQY_INBOX_REDIS_URL`` names its Redis.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from runqy_provider.inbox import keys
from runqy_provider.inbox.writer import shared_put

if TYPE_CHECKING:
    from starlette.requests import Request

TTL = 3600


def make_app(redis_url: str) -> Starlette:
    """Return the application."""
    put = shared_put(Redis.from_url(redis_url, max_connections=64))

    async def take(request: Request) -> JSONResponse:
        body = await request.body()
        conn_id = request.path_params["conn_id"]
        delivery_id = request.path_params["delivery_id"]
        outcome = await put(
            [
                keys.delivery(conn_id, delivery_id),
                keys.arrivals(conn_id),
                keys.seen(conn_id, delivery_id),
                keys.accepted(conn_id),
                keys.rejected(conn_id),
                keys.channel(conn_id, ""),
            ],
            [
                *("digest", "completed", body, "1.0", TTL, delivery_id, 0),
                *(body[:100], 99, "", 1000, "PUBLISH"),
            ],
        )
        return JSONResponse({"outcome": outcome.decode()})

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    path = "/{conn_id}/v1/deliveries/{delivery_id}"
    return Starlette(
        routes=[Route(path, take, methods=["POST"]), Route("/health", health)]
    )


if __name__ == "__main__":
    app = make_app(os.environ["RUNQY_INBOX_REDIS_URL"])
    gc.collect()
    gc.freeze()
    port = int(sys.argv[sys.argv.index("--port") + 1])
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False)
