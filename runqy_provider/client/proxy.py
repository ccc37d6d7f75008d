# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Which proxy leads to the runqy server, by the environment variables.

httpx cannot read networks (``10.0.0.0/8``) in ``NO_PROXY``, and requests reads those of
IPv4 only; so it is read here, for both.
"""

from __future__ import annotations

import ipaddress
import urllib.request
from urllib.parse import urlsplit

from runqy_provider.errors import Misconfigured


def proxy_for(url: str) -> str | None:
    """Return the proxy for a URL; None: it is reached directly.

    Raises:
        Misconfigured: The proxy that the environment names is not a URL.
    """
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or _is_direct(parts.hostname or "", parts.port, proxies.get("no", "")):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        is_url = bool(urlsplit(proxy).hostname)
        _ = urlsplit(proxy).port
    except ValueError:
        is_url = False
    if not is_url:
        name = f"{parts.scheme.upper()}_PROXY"
        raise Misconfigured(
            f"The environment variable {name} (or ALL_PROXY) is not the URL of a proxy."
        )
    return proxy


def _is_direct(host: str, port: int | None, exceptions: str) -> bool:
    """Return whether ``NO_PROXY`` excepts a host."""
    address = _address(host)
    for text in exceptions.replace(",", " ").split():
        entry = text.strip().lower()
        if entry == "*" or entry in (host.lower(), f"{host.lower()}:{port}"):
            return True
        if address is not None:
            network = _network(entry)
            if network is not None and address in network:
                return True
        elif host.lower().endswith(f".{entry.lstrip('*').lstrip('.')}"):
            return True
    return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None
