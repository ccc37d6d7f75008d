# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code that takes a while, as work on a GPU does."""

from __future__ import annotations

import time
from typing import Any

from runqy_python import run, task

from runqy_delivery import delivers


@task
@delivers
def handle(payload: dict[str, Any]) -> dict[str, Any]:
    """Pretend to work for some seconds."""
    time.sleep(payload.get("seconds", 1))
    return {"scene": payload["scene"], "width": 1280}


if __name__ == "__main__":
    run()
