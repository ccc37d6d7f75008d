"""Whichever sink reports first, the result is the one in the first sink."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import pytest

from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.inbox import callback_url
from runqy_provider.models import is_reference
from runqy_provider.settings import load_settings
from runqy_provider.sinks.combined import CombinedSink
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from collections.abc import Callable

    from devtools.servers.postgres import Postgres
    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling")

SINK = "s3://results/films sql://pg/tasks webhook"

#: What the guide's combined pattern writes beside the object.
NOTICES = [
    written
    for count in range(3)
    for written in itertools.combinations(["row", "webhook"], count)
]

#: Each of them may be what the wait notices first.
NOTICED = [(written, noticed) for written in NOTICES for noticed in ("film", *written)]


class Guide:
    """Task code as in runqy's guide: an object, a row, a webhook without a status."""

    def __init__(self, stack: Stack, postgres: Postgres) -> None:
        self.delivery_id = str(uuid.uuid4())
        self.key = f"films/{self.delivery_id}"
        self._stack, self._postgres = stack, postgres

    @property
    def url(self) -> str:
        return f"s3://results/{self.key}"

    def film(self) -> None:
        aws = self._stack.connections["aws_default"]
        boto3.client(
            "s3",
            endpoint_url=self._stack.sandbox.s3_url,
            aws_access_key_id=aws["login"],
            aws_secret_access_key=aws["password"],
            region_name="us-east-1",
        ).put_object(
            Bucket="results", Key=self.key, Body=b"film", ContentType="video/mp4"
        )

    def row(self) -> None:
        result = {
            "status": "completed",
            "result_url": self.url,
            "duration_seconds": 12.5,
        }
        with self._postgres.connect() as connection:
            connection.execute(
                "INSERT INTO tasks VALUES (%s, 'completed', %s, now())",
                (self.delivery_id, json.dumps(result)),
            )

    def webhook(self) -> None:
        extra = self._stack.connections["runqy_default"]["extra"]
        url = callback_url.url(
            extra["callback_url"],
            extra["callback_secret"],
            "runqy_default",
            self.delivery_id,
            int(time.time()) + 60,
        )
        body = {"task_id": self.delivery_id, "result_url": self.url}
        httpx.post(url, json=body).raise_for_status()


@pytest.mark.parametrize(("written", "noticed"), NOTICED)
def test_combined_sink_any_order_returns_result_of_first_sink(
    stack: Stack, postgres: Postgres, written: tuple[str, ...], noticed: str
) -> None:
    guide = Guide(stack, postgres)
    for step in ("film", *written):
        getattr(guide, step)()
    sink = sink_from_uri(SINK)
    assert isinstance(sink, CombinedSink)
    parts = {
        "film": sink.primary,
        "row": sink.notifiers[0],
        "webhook": sink.notifiers[1],
    }
    uri = (
        parts[noticed]
        .bind(load_settings("runqy_default"))
        .result_uri(guide.delivery_id)
    )

    outcome = RunqyResultHook().collect(sink, guide.delivery_id, uri)

    assert is_reference(outcome)
    assert outcome["uri"] == guide.url
    assert (outcome["content_type"], outcome["size"]) == ("video/mp4", 4)
    expected = {"duration_seconds": 12.5} if "row" in written else None
    assert outcome["metadata"] == expected


def test_combined_sink_result_only_in_notifier_is_returned(
    stack: Stack, postgres: Postgres, connect: Callable[..., Any]
) -> None:
    connect()
    guide = Guide(stack, postgres)
    with postgres.connect() as connection:
        connection.execute(
            "INSERT INTO tasks VALUES (%s, 'completed', %s, now())",
            (guide.delivery_id, json.dumps({"sum": 3})),
        )
    sink = sink_from_uri(SINK)
    assert isinstance(sink, CombinedSink)
    uri = (
        sink.notifiers[0]
        .bind(load_settings("runqy_default"))
        .result_uri(guide.delivery_id)
    )

    assert RunqyResultHook().collect(sink, guide.delivery_id, uri) == {"sum": 3}
