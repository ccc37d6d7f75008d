# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Ports and HTTP on this machine, and nowhere else."""

from __future__ import annotations

import http.client
import random
import socket
from contextlib import suppress
from pathlib import Path

HOST = "127.0.0.1"

#: Where Linux says which ports it gives to outgoing connections.
OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")

#: The lowest port that is given out: below are those that services are known by.
LOWEST = 15000

#: How many ports to try before the system's own choice is taken.
TRIES = 50


def free_port() -> int:
    """Return a port that nobody listens on, for a program that cannot take port 0.

    It is none of those that outgoing connections get: a server that takes seconds to
    start would find such a port taken now and then.
    """
    end = _first_outgoing()
    for _ in range(TRIES if end > LOWEST else 0):
        port = random.randrange(LOWEST, end)  # noqa: S311 - not for secrets
        with suppress(OSError):
            return _bound(port)
    return _bound(0)


def _first_outgoing() -> int:
    try:
        return int(OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0  # another system than Linux


def _bound(port: int) -> int:
    with socket.socket() as listener:
        listener.bind((HOST, port))
        return int(listener.getsockname()[1])


def ask(port: int, method: str, path: str) -> int | None:
    """Return the status of an HTTP answer; nothing if there is no answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
