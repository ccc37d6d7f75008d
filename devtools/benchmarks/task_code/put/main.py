# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code that puts its result to a signed URL, for the peer's sensor to find."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

from runqy_python import run, task


@task
def handle(payload: dict[str, Any]) -> None:
    """Sleep, and store when that was done."""
    time.sleep(payload["seconds"])
    request = urllib.request.Request(  # noqa: S310 - the benchmark's own URL
        payload["put_url"],
        data=json.dumps({"at": time.time()}).encode(),
        headers={"Content-Type": "application/json"},
        method="PUT",
    )
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - same


if __name__ == "__main__":
    run()
