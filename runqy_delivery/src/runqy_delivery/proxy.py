# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Which proxy leads to a URL, by the environment variables.

Clients of HTTP differ in how they read ``NO_PROXY``: urllib and httpx know no networks
(``10.0.0.0/8``), requests those of IPv4 only. So it is read here, for Airflow and for
task code. Entries are separated by commas or blanks; each is ``*``, a host and all of
its subdomains, an address, or a network, and may have a port.
"""

from __future__ import annotations

import ipaddress
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing import Union

    Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
    Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

DEFAULT_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str) -> str | None:
    """Return the proxy for a URL; None: it is reached directly.

    Raises:
        ValueError: The proxy that the environment names is not a URL. The message does
            not repeat it, as it may contain a password.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    if not proxy or _is_direct(host, port, proxies.get("no", "")):
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
        raise ValueError(
            f"The environment variable {name} (or ALL_PROXY) is not the URL of a proxy."
        )
    return proxy


def _is_direct(host: str, port: int | None, exceptions: str) -> bool:
    """Return whether a host is reached without a proxy."""
    entries = exceptions.replace(",", " ").lower().split()
    if any(_excepts(entry, host, port) for entry in entries):
        return True
    # macOS and Windows have exceptions in the system's settings, too.
    return not urllib.request.getproxies_environment() and bool(
        urllib.request.proxy_bypass(host)
    )


def _excepts(entry: str, host: str, port: int | None) -> bool:
    """Return whether one entry of ``NO_PROXY`` excepts a host from the proxy."""
    network = _network(entry)
    if network is None:
        name, _, wanted = entry.rpartition(":")
        if name and wanted.isdecimal():
            if int(wanted) != port:
                return False
            entry, network = name, _network(name)
    address = _address(host)
    if address is None:
        return entry == "*" or f".{host}".endswith(f".{entry.lstrip('*').lstrip('.')}")
    return entry == "*" or (network is not None and address in network)


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _network(entry: str) -> Network | None:
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None
