"""Runs of tasks with a SQL sink."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support import harness

if TYPE_CHECKING:
    from tests.support.harness import Run


def run_of(
    sink: str, payload: Any = None, runqy_queue: str = "helper", **arguments: Any
) -> Run:
    """Return a run of a task with this sink."""
    return harness.run_of(payload, runqy_queue, sink=sink, **arguments)
