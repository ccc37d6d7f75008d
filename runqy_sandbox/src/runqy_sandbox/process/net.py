# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Free ports and HTTP requests on the loopback interface."""

from __future__ import annotations

import http.client
import random
import socket
from contextlib import suppress
from pathlib import Path

HOST = "127.0.0.1"

#: Where Linux keeps the range of ports that it gives to outgoing connections.
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

#: The lowest port to use; well-known services have lower ones.
MIN_PORT = 15000

#: How many random ports to try before the system chooses one.
MAX_TRIES = 50


def free_port() -> int:
    """Return a free port, for a program that cannot listen on port 0.

    If the range of outgoing connections is known, the port is below it: otherwise an
    outgoing connection could take the port while the program is still starting.
    """
    end = _first_ephemeral_port()
    for _ in range(MAX_TRIES if end > MIN_PORT else 0):
        port = random.randrange(MIN_PORT, end)  # noqa: S311 - not for secrets
        with suppress(OSError):
            return _bind(port)
    return _bind(0)


def _first_ephemeral_port() -> int:
    """Return the first port of outgoing connections, or 0 if it is not known."""
    try:
        return int(EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0  # not Linux


def _bind(port: int) -> int:
    """Bind a port for a moment and return it; 0 lets the system choose."""
    with socket.socket() as listener:
        listener.bind((HOST, port))
        return int(listener.getsockname()[1])


def http_status(port: int, method: str, path: str) -> int | None:
    """Send an HTTP request and return the status, or None without a response."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
