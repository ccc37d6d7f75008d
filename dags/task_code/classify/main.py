# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A handler that works with any sink: the DAG decides where its result goes."""

from __future__ import annotations

from typing import Any

from runqy_python import run, task

from runqy_delivery import delivers


@task
@delivers
def handle(payload: dict[str, Any]) -> dict[str, Any]:
    """Classify an image by its name."""
    name = str(payload["image"])
    return {"image": name, "label": "cat" if "cat" in name else "dog"}


if __name__ == "__main__":
    run()
