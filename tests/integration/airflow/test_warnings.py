"""What is refused, or warned of, before a job is enqueued."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.context import get_access
from runqy_provider.errors import Misconfigured
from runqy_provider.sinks import inbox as inbox_parcels
from runqy_provider.sinks.object_store import s3_store
from runqy_provider.sinks.object_store.base import SignedPut
from runqy_provider.sinks.registry import parse_sink
from tests.support.harness import run_of

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


@pytest.mark.parametrize("base_url", ["/airflow/", "airflow.example.com", "ftp://h/"])
def test_a_base_url_without_a_host_is_refused_before_anything_is_enqueued(
    base_url: str, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(without=("callback_url",))
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    run = run_of({"value": 1}, sink="webhook").execute()

    assert isinstance(run.error, Misconfigured)
    assert "not a whole URL with a host" in str(run.error)
    assert "runqy_job" not in run.xcoms


@pytest.mark.parametrize(
    ("callback_url", "server_url", "is_warned"),
    [
        ("http://localhost:8080/runqy", "http://runqy.example:3000", True),
        ("http://127.0.0.1:8080/runqy", "http://runqy.example:3000", True),
        ("http://[::1]:8080/runqy", "http://runqy.example:3000", True),
        ("http://localhost:8080/runqy", "http://127.0.0.1:3000", False),
        ("https://airflow.example/runqy", "http://runqy.example:3000", False),
    ],
)
def test_a_callback_to_this_machine_is_warned_of_where_workers_are_elsewhere(
    callback_url: str,
    server_url: str,
    is_warned: bool,
    connect: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    connect(callback_url=callback_url, fields={"host": server_url})
    inbox_parcels.warn_of_loopback(get_access("runqy_default"))

    assert ("callback_url" in caplog.text) is is_warned


@pytest.mark.parametrize(("hours", "is_warned"), [(1, True), (48, False)])
def test_a_signed_url_that_ends_with_its_credentials_is_warned_of(
    hours: int,
    is_warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ends = time.time() + hours * 3600
    monkeypatch.setattr(
        s3_store.S3Store,
        "sign_put",
        lambda *_: SignedPut("https://s3/x?sig", ends_at=ends),
    )
    access = get_access("runqy_default")
    parse_sink("s3://results").request(access, "d-1", time.time() + 24 * 3600)

    end = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ends))
    assert (f"until {end} only" in caplog.text) is is_warned
    assert "sig" not in caplog.text.replace("signed", "").replace("signer", "")


def test_the_end_of_a_roles_credentials_is_known() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    role = SimpleNamespace(_expiry_time=moment)
    client = SimpleNamespace(_request_signer=SimpleNamespace(_credentials=role))

    assert s3_store._end_of_credentials(client) == moment.timestamp()
    client._request_signer._credentials = SimpleNamespace()
    assert s3_store._end_of_credentials(client) is None
