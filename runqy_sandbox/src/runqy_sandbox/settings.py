# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What the server and the worker are told, through their environment.

Not through arguments: the list of processes shows those to everyone.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any, Self

#: The environment variable that carries the settings, as JSON.
VARIABLE = "RUNQY_SANDBOX_SETTINGS"


@dataclass(frozen=True)
class _Settings:
    """Settings that can cross into another process."""

    def to_environment(self) -> dict[str, str]:
        """Return the environment that carries these settings."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings, and keep them from processes further down."""
        return cls(**json.loads(os.environ.pop(VARIABLE)))


@dataclass(frozen=True)
class ServerSettings(_Settings):
    """What the stand-in for the runqy server is told."""

    redis_url: str
    port: int
    queues: dict[str, Any]
    admin_key: str = field(repr=False)
    client_key: str = field(repr=False)
    worker_key: str = field(repr=False)


@dataclass(frozen=True)
class WorkerSettings(_Settings):
    """What the stand-in for runqy-worker is told."""

    redis_url: str
    queues: dict[str, Any]
    retry_unit: float = 10.0
    lease_seconds: float = 120.0
    concurrency: int = 2
    processes: int = 1
    environment: dict[str, str] = field(default_factory=dict, repr=False)
