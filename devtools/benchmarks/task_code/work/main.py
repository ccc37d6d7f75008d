# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code that works for as long as its payload says."""

from __future__ import annotations

import time
from typing import Any

from runqy_python import run, task

from runqy_delivery import delivers


@task
@delivers
def handle(payload: dict[str, Any]) -> dict[str, Any]:
    """Sleep and return."""
    time.sleep(payload["seconds"])
    return {"done": payload.get("n"), "at": time.time()}


if __name__ == "__main__":
    run()
