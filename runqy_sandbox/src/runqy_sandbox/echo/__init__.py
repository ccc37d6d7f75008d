# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The queue ``echo``, which the sandbox serves when no other queues are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Queues in the format of runqy's YAML files: ``echo`` alone.
ECHO_QUEUES: dict[str, Any] = {
    "queues": {
        "echo": {
            "task_code": str(Path(__file__).parent),
            "deployment": {"redis_storage": True},
        }
    }
}
