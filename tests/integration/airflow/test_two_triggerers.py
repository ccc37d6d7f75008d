"""Two triggerers and two receivers: a delivery wakes the wait that it belongs to."""

from __future__ import annotations

import functools
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import requests

from devtools.receiver import running_receiver
from runqy_delivery import Delivery
from runqy_provider.inbox import callback_url
from runqy_provider.triggers.delivery import DeliveryTrigger
from tests.support.triggerer_process import Triggerer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.stack import Stack

WAITS, TRIGGERERS = 60, 2


def _trigger(number: int) -> DeliveryTrigger:
    return DeliveryTrigger(
        runqy_conn_id="runqy_default",
        delivery_id=f"two-{number}",
        sink="webhook",
        deadline=time.time() + 600,
    )


def test_two_triggerers_and_receivers_wake_each_wait_once(
    stack: Stack, connect: Callable[..., Any], tmp_path: Path
) -> None:
    connections = connect()
    secret = connections["runqy_default"]["extra"]["callback_secret"]
    shares = [range(n, WAITS, TRIGGERERS) for n in range(TRIGGERERS)]
    folders = [tmp_path / f"{n}" for n in range(TRIGGERERS)]
    with ExitStack() as resources:
        second = resources.enter_context(
            running_receiver(stack.sandbox.redis_url, secret)
        )
        triggerers = []
        for folder, share in zip(folders, shares, strict=True):
            folder.mkdir()
            triggers = {n: _trigger(n) for n in share}
            triggerer = Triggerer(folder, triggers, connections)
            triggerers.append(resources.enter_context(triggerer))
        for triggerer in triggerers:
            triggerer.run_until(functools.partial(getattr, triggerer, "asked"))
        # Some waits begin later than their delivery comes: they look at state.
        expires = int(time.time()) + 600
        session = resources.enter_context(requests.Session())
        for n in range(WAITS):
            # Neither receiver belongs to a triggerer: half of each one's waits.
            base = (stack.receiver_url, second.url)[n // TRIGGERERS % 2]
            url = callback_url.url(base, secret, "runqy_default", f"two-{n}", expires)
            body = Delivery(f"two-{n}", result=n).to_json()
            session.post(url, data=body, timeout=60).raise_for_status()
        for triggerer, share in zip(triggerers, shares, strict=True):
            triggerer.run_until(functools.partial(_are_in, triggerer, share))
        reports = [(each.events, each.firings, each.failures) for each in triggerers]

    for (events, firings, failures), share in zip(reports, shares, strict=True):
        assert failures == {}
        assert {int(n): event["delivery_id"] for n, event in events.items()} == {
            n: f"two-{n}" for n in share
        }
        assert {event["kind"] for event in events.values()} == {"arrived"}
        assert firings == len(share)


def _are_in(triggerer: Triggerer, share: range) -> bool:
    return len(triggerer.events) >= len(share)
