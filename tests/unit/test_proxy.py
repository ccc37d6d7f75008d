"""Which proxy the environment variables name for the runqy server."""

from __future__ import annotations

import pytest

from runqy_provider.client.proxy import proxy_for
from runqy_provider.client.transport import open_async_client, open_session
from runqy_provider.connections import RunqyConnection
from runqy_provider.errors import Misconfigured

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def proxy_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", PROXY)


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("", "http://10.1.2.3:3000", False),
        ("10.0.0.0/8", "http://10.1.2.3:3000", True),
        ("10.0.0.0/8", "http://11.1.2.3:3000", False),
        ("a.example, 10.0.0.0/8 ,b.example", "http://10.1.2.3", True),
        ("fd00::/64", "http://[fd00::5]:3000", True),
        ("fd00::/64", "http://[fd01::5]:3000", False),
        ("[fd00::5]", "http://[fd00::5]:3000", True),
        ("192.168.1.7", "http://192.168.1.7", True),
        ("runqy.internal", "http://runqy.internal:3000", True),
        ("runqy.internal:3000", "http://runqy.internal:3000", True),
        ("runqy.internal:3001", "http://runqy.internal:3000", False),
        (".internal", "http://runqy.internal:3000", True),
        ("internal", "http://runqy.internal:3000", True),
        ("*.internal", "http://runqy.internal:3000", True),
        ("nal", "http://runqy.internal:3000", False),
        ("*", "http://anything", True),
        ("not/a/network", "http://10.1.2.3", False),
    ],
)
def test_proxy_no_proxy_with_hosts_and_networks_is_honoured(
    no_proxy: str, url: str, *, is_direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", no_proxy)

    assert proxy_for(url) == (None if is_direct else PROXY)


async def test_proxy_any_no_proxy_both_clients_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,fd00::/64")
    direct = RunqyConnection("c", "http://10.1.2.3:3000")
    proxied = RunqyConnection("c", "http://11.1.2.3:3000")

    with open_session(direct) as session:
        assert session.proxies == {}
    with open_session(proxied) as session:
        assert session.proxies == {"http": PROXY}
    for settings in (direct, proxied):
        await open_async_client(settings).aclose()


@pytest.mark.parametrize("proxy", ["http://", "http://h:x", "//"])
def test_proxy_invalid_url_error_names_the_variable(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)

    with pytest.raises(Misconfigured, match="HTTP_PROXY"):
        proxy_for("http://10.1.2.3")
