# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Check everything that a task needs of a runqy connection, one line per check.

This module has the result of one check, and the report of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Status = Literal["ok", "warning", "failed"]
OK: Status = "ok"
WARNING: Status = "warning"
FAILED: Status = "failed"


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        subject: What was checked: ``"API key"``.
        status: OK; WARNING if tasks can run but something is missing; FAILED if they
            cannot.
        message: What was found, and what to do next.
    """

    subject: str
    status: Status
    message: str

    def __str__(self) -> str:
        # Airflow's page shows all lines as one paragraph.
        return f"[{self.status}] {self.subject}: {self.message}"


def is_usable(results: Sequence[CheckResult]) -> bool:
    """Return whether tasks can run: no check failed."""
    return all(result.status != FAILED for result in results)


def report(results: Sequence[CheckResult]) -> str:
    """Return all results as text, one per line; those that failed first."""
    order = (FAILED, WARNING, OK)
    ordered = sorted(results, key=lambda result: order.index(result.status))
    return "\n".join(str(result) for result in ordered)
