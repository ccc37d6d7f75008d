# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Return the payload, and deliver it if the payload says where to."""

from __future__ import annotations

from typing import Any

from runqy_python import run, task

from runqy_delivery import delivers


@task  # type: ignore[untyped-decorator] # the SDK has no types
@delivers
def handle(payload: Any) -> Any:
    """Return what came in."""
    return payload


if __name__ == "__main__":
    run()
