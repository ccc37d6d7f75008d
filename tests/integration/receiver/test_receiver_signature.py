"""Signed deliveries: what the receiver accepts if it has a signing secret."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest
from standardwebhooks.webhooks import Webhook

from runqy_delivery.signature import sign
from runqy_provider.receiver.connections import CallbackConnection
from tests.integration.receiver.constants import (
    GOOD,
    SIGNING,
    Client,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def signing_connection(
    connections: dict[str, CallbackConnection], conn_id: str
) -> None:
    connection = connections[conn_id]
    connections[conn_id] = CallbackConnection(
        conn_id, connection.redis, connection.callback_secrets, (SIGNING,)
    )


@pytest.mark.usefixtures("signing_connection")
async def test_receiver_signing_secret_unsigned_body_is_refused(
    client: Client, url: Callable[..., str], stored: Callable[[], list[bytes]]
) -> None:
    now = int(time.time())
    unsigned = await client.post(url(), content=GOOD)
    forged = await client.post(
        url(), content=GOOD, headers=sign("A" * 32, "d", now, GOOD)
    )
    stale = sign(SIGNING, "d", now - 7200, GOOD)
    old = await client.post(url(), content=GOOD, headers=stale)
    assert [a.status_code for a in (unsigned, forged, old)] == [403] * 3
    assert stored() == []

    # A clock that is ten minutes wrong loses no result.
    good = sign(SIGNING, "d", now - 600, GOOD)
    assert (await client.post(url(), content=GOOD, headers=good)).status_code == 200


@pytest.mark.usefixtures("signing_connection")
async def test_receiver_signature_of_standardwebhooks_is_accepted(
    client: Client, url: Callable[..., str]
) -> None:
    now = datetime.now(tz=timezone.utc)
    signature = Webhook(SIGNING).sign("msg_1", now, GOOD.decode())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }

    assert (await client.post(url(), content=GOOD, headers=headers)).status_code == 200


def test_signature_is_accepted_by_standardwebhooks() -> None:
    headers = sign(SIGNING, "msg_1", int(time.time()), GOOD)

    assert Webhook(SIGNING).verify(GOOD, headers) == {
        "version": 1,
        "task_id": "d",
        "status": "completed",
        "result": {"a": 1},
    }
