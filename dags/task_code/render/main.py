# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code with the helper and a model that is loaded once: returns an image."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from runqy_python import load, run, task

from runqy_delivery import Result, delivers


@load
def setup() -> dict[str, Any]:
    """Load what all jobs share."""
    return {"palette": [bytes((shade, 80, 255 - shade)) for shade in range(256)]}


@task
@delivers
def handle(payload: dict[str, Any], ctx: dict[str, Any]) -> Result:
    """Draw a square with a gradient, as a PNG."""
    side = int(payload["side"])
    shades = [ctx["palette"][column * 256 // side] for column in range(side)]
    row = b"\0" + b"".join(shades)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(row * side, 0)),
        (b"IEND", b""),
    ]
    image = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc(name, data))
        for name, data in chunks
    )
    return Result(image, content_type="image/png", metadata={"side": side})


def crc(name: bytes, data: bytes) -> int:
    """Return the checksum of one chunk."""
    return zlib.crc32(name + data)


if __name__ == "__main__":
    run()
