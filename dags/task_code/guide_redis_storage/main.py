# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code after runqy's guide, redis_storage: it returns, and runqy keeps it."""

from __future__ import annotations

from typing import Any

from runqy_python import run, task


@task
def handle(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the result; the queue is configured with redis_storage: true."""
    return {"sum": sum(payload["numbers"])}


if __name__ == "__main__":
    run()
