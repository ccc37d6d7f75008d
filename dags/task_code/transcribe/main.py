# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code with the helper: what handle returns is delivered, what it raises too."""

from __future__ import annotations

from typing import Any

from runqy_python import run, task

from runqy_delivery import delivers


@task
@delivers
def handle(payload: dict[str, Any]) -> dict[str, Any]:
    """Pretend to transcribe a recording."""
    if payload["input"].endswith(".silence"):
        raise ValueError(f"{payload['input']} has nothing to hear")
    words = f"what was said in {payload['input']}"
    return {"text": words, "words": len(words.split())}


if __name__ == "__main__":
    run()
