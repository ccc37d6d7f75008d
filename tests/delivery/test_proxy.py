"""Which proxy the environment variables name, and what is sent to it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from runqy_delivery._http import send_once
from runqy_delivery.errors import DeliveryImpossible
from runqy_delivery.proxy import proxy_for
from runqy_delivery.sinks import webhook
from tests.delivery.helpers import deliver, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.delivery.helpers import HttpServer

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def _proxy_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", PROXY)


@pytest.fixture
def proxy() -> Iterator[HttpServer]:
    """A server that takes the place of a proxy: it answers by itself."""
    with running_server() as proxy:
        yield proxy


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
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
        ("*", "http://10.1.2.3", True),
        ("2.3", "http://10.1.2.3", False),
        ("[fd00::5]:3000", "http://[fd00::5]:3000", True),
        ("[fd00::5]:3001", "http://[fd00::5]:3000", False),
        ("10.1.2.3:80", "http://10.1.2.3", True),
        (".internal:3000", "http://runqy.internal:3000", True),
        ("RunQy.Internal", "http://runqy.INTERNAL", True),
        ("not/a/network", "http://10.1.2.3", False),
    ],
)
def test_proxy_no_proxy_with_hosts_and_networks_is_honoured(
    no_proxy: str,
    url: str,
    *,
    is_direct: bool,
    variable: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, no_proxy)

    assert proxy_for(url) == (None if is_direct else PROXY)


@pytest.mark.parametrize("proxy", ["http://", "http://h:x", "//"])
def test_proxy_invalid_url_error_names_the_variable(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)

    with pytest.raises(ValueError, match="HTTP_PROXY"):
        proxy_for("http://10.1.2.3")
    with pytest.raises(DeliveryImpossible, match="HTTP_PROXY"):
        webhook.post("http://10.1.2.3/x", "id", b"{}")
    assert "HTTP_PROXY" in (send_once("http://10.1.2.3/x", b"{}", {}, 1) or "")


@pytest.mark.parametrize("no_proxy", ["127.0.0.0/8", "10.0.0.0/8 127.0.0.1", "*"])
def test_deliver_host_in_no_proxy_sends_token_past_the_proxy(
    server: HttpServer,
    proxy: HttpServer,
    no_proxy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", no_proxy)

    deliver(server, 1)

    assert len(server.requests) == 1
    assert proxy.requests == []


@pytest.mark.parametrize("no_proxy", ["", "10.0.0.0/8", "0.0.1"])
def test_deliver_host_not_in_no_proxy_goes_through_the_proxy(
    server: HttpServer,
    proxy: HttpServer,
    no_proxy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.url.replace("//", "//me:p%40ss@"))
    monkeypatch.delenv("HTTP_PROXY")
    monkeypatch.setenv("NO_PROXY", no_proxy)

    webhook.post(f"{server.url}/x", "id", b"{}")

    (request,) = proxy.requests
    assert request.path == f"{server.url}/x"
    login = base64.b64encode(b"me:p@ss").decode()
    assert request.headers["proxy-authorization"] == f"Basic {login}"
    assert server.requests == []


def test_deliver_proxy_for_socks_is_left_out(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HTTP_PROXY")
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.example:1080")

    webhook.post(f"{server.url}/x", "id", b"{}")

    assert len(server.requests) == 1
