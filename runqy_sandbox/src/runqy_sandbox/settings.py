# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The settings of the server and worker processes, passed in their environment.

They contain keys, so they are not command-line arguments: every user of the machine can
read those in the list of processes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

#: The environment variable that carries the settings as JSON.
VARIABLE = "RUNQY_SANDBOX_SETTINGS"


@dataclass(frozen=True)
class _Settings:
    """Settings that can be passed to another process."""

    def to_environment(self) -> dict[str, str]:
        """Return the environment variable that carries these settings."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings, and hide them from the child processes of this one."""
        return cls(**json.loads(os.environ.pop(VARIABLE)))


@dataclass(frozen=True)
class ServerSettings(_Settings):
    """The settings of the stand-in for the runqy server."""

    redis_url: str
    port: int
    queues: dict[str, Any]
    admin_key: str = field(repr=False)
    client_key: str = field(repr=False)
    worker_key: str = field(repr=False)


@dataclass(frozen=True)
class WorkerSettings(_Settings):
    """The settings of the stand-in for runqy-worker; ``Sandbox`` describes them."""

    redis_url: str
    queues: dict[str, Any]
    retry_unit: float
    lease_seconds: float
    concurrency: int
    processes: int
    environment: dict[str, str] = field(repr=False)
