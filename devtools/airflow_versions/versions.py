# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The versions of Airflow that are tested, and with which versions of Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class AirflowVersion:
    """A version of Airflow that is tested.

    Attributes:
        name: The version.
        day: The day after its release.
        pythons: The versions of Python that it runs on, and this provider, too.
    """

    name: str
    day: str
    pythons: tuple[str, ...] = ("3.10", "3.11", "3.12", "3.13")

    @property
    def folder(self) -> Path:
        """Where its environment is."""
        return ROOT / ".airflow" / self.name


#: The oldest and the newest patch of every minor, and those around a change that
#: matters to us: 3.2.2 made the triggerer's pipe sound.
VERSIONS = (
    AirflowVersion("3.0.6", "2025-08-30", ("3.10", "3.11", "3.12")),
    AirflowVersion("3.1.0", "2025-09-26"),
    AirflowVersion("3.1.8", "2026-03-12"),
    AirflowVersion("3.2.0", "2026-04-08"),
    AirflowVersion("3.2.1", "2026-04-23"),
    AirflowVersion("3.2.2", "2026-05-30"),
    AirflowVersion("3.3.0", "2026-07-07"),
    AirflowVersion("3.3.2", "2026-09-18"),
)

BY_NAME = {version.name: version for version in VERSIONS}
