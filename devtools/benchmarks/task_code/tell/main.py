# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code that only says that it is done, for the floor's trigger to hear."""

from __future__ import annotations

import json
import time
from typing import Any

from redis import Redis
from runqy_python import run, task


@task
def handle(payload: dict[str, Any]) -> None:
    """Sleep, and say when that was done."""
    time.sleep(payload["seconds"])
    with Redis.from_url(payload["redis_url"]) as redis:
        redis.rpush(payload["key"], json.dumps({"at": time.time()}))


if __name__ == "__main__":
    run()
