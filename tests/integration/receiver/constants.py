"""The secrets, limits and delivery that the tests of the receiver share."""

from __future__ import annotations

import base64

import httpx

from runqy_delivery import Delivery
from runqy_provider.receiver.connections import Limits

SECRET = "a secret of the receiver"
OLD_SECRET = "the old secret of the receiver"
SIGNING = "whsec_" + base64.b64encode(b"signs bodies, with 32 bytes here").decode()
LIMITS = Limits(
    max_body_bytes=2000,
    max_drain_bytes=2000,
    ttl=100,
    body_seconds=1.5,
    grace=0.3,
    max_in_flight=4,
    max_in_flight_per_delivery=2,
)
GOOD = Delivery("d", result={"a": 1}).to_json()

Client = httpx.AsyncClient
