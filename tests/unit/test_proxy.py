"""Requests to the runqy server go through the proxy that the environment names."""

from __future__ import annotations

import pytest

from runqy_provider.client.api import open_session
from runqy_provider.connections import RunqyConnection
from runqy_provider.errors import Misconfigured

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def proxy_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", PROXY)


def test_proxy_any_no_proxy_session_opens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,fd00::/64")
    direct = RunqyConnection("c", "http://10.1.2.3:3000")
    proxied = RunqyConnection("c", "http://11.1.2.3:3000")

    with open_session(direct) as session:
        assert session.proxies == {}
    with open_session(proxied) as session:
        assert session.proxies == {"http": PROXY}


def test_proxy_invalid_url_error_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://h:x")

    with pytest.raises(Misconfigured, match="HTTP_PROXY"):
        open_session(RunqyConnection("c", "http://10.1.2.3"))
