# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 without a client library, whose own time would be measured, too."""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    """The answer to a request: its status, and whether the server then disconnects."""

    status: int
    closes: bool


def post_request(url: str, body: bytes, *headers: str) -> bytes:
    """Return a whole POST request.

    Args:
        url: Its address.
        body: Its body.
        headers: More lines of its head.
    """
    parts = urlsplit(url)
    lines = [f"POST {parts.path}?{parts.query} HTTP/1.1", "Host: r"]
    lines += [f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> Answer:
    """Send a request and read the answer, within 30 s.

    Raises:
        ConnectionError: The server closed the connection.
        IncompleteReadError: It did so in the middle of an answer.
        TimeoutError: It did not answer.
    """
    writer.write(request)
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        fields = head.lower().split(b"\r\n")
        length = next((f for f in fields if f.startswith(b"content-length:")), b":0")
        await reader.readexactly(int(length.split(b":")[1]))
    return Answer(int(head.split()[1]), b"connection: close" in fields)
