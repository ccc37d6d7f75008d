# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code that returns its payload, and delivers it if the payload asks for that."""

from __future__ import annotations

from typing import Any

from runqy_python import run, task

from runqy_delivery import delivers


@task  # type: ignore[untyped-decorator] # runqy_python has no types
@delivers
def handle(payload: Any) -> Any:
    """Return the payload."""
    return payload


if __name__ == "__main__":
    run()
