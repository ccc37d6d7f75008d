"""Settings that are refused, or warned of, before a job is enqueued."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
import pytest
from botocore.credentials import RefreshableCredentials

from runqy_provider.errors import Misconfigured
from runqy_provider.settings import load_settings
from runqy_provider.sinks.inbox import InboxBackend
from runqy_provider.sinks.object_store import s3
from runqy_provider.sinks.object_store.base import SignedPut
from runqy_provider.sinks.registry import sink_from_uri
from tests.support.harness import run_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


@pytest.mark.parametrize("base_url", ["/airflow/", "airflow.example.com", "ftp://h/"])
def test_webhook_base_url_without_host_is_refused_before_enqueue(
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
def test_webhook_loopback_callback_url_with_remote_server_is_warned_of(
    callback_url: str,
    server_url: str,
    is_warned: bool,
    connect: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    connect(callback_url=callback_url, fields={"host": server_url})
    InboxBackend(load_settings("runqy_default")).warn_of_loopback()

    assert ("callback_url" in caplog.text) is is_warned


@pytest.mark.parametrize(("hours", "is_warned"), [(1, True), (48, False)])
def test_signed_url_limited_by_credentials_is_warned_of(
    hours: int,
    is_warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ends = time.time() + hours * 3600
    monkeypatch.setattr(
        s3.S3Store,
        "sign_put",
        lambda *_: SignedPut("https://s3/x?TOKEN", ends_at=ends),
    )
    access = load_settings("runqy_default")
    sink_from_uri("s3://results").bind(access).request("d-1", time.time() + 24 * 3600)

    end = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ends))
    assert (f"until {end}, when the credentials" in caplog.text) is is_warned
    assert "TOKEN" not in caplog.text


def test_signed_url_of_role_ends_with_its_credentials(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    expires = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=2)
    session = botocore.session.get_session()
    credentials = RefreshableCredentials(
        "key", "secret", "token", expires, refresh_using=dict, method="assume-role"
    )
    provider = SimpleNamespace(load_credentials=lambda: credentials)
    session.register_component("credential_provider", provider)
    client = boto3.Session(botocore_session=session).client(
        "s3", region_name="us-east-1", endpoint_url=stack.sandbox.s3_url
    )
    store = s3.S3Store("results", "aws_default")
    assert store.sign_put("k", 60).ends_at is None, "an access key does not expire"

    shared = SimpleNamespace(boto3=client, signed_endpoint=None)
    monkeypatch.setattr(s3, "shared_s3", lambda *_: shared)

    assert store.sign_put("k", 60).ends_at == expires.timestamp()
