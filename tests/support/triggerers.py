"""Triggerers, as rows of Airflow's database."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from airflow.jobs.job import Job
from airflow.models.trigger import Trigger
from sqlalchemy import delete, func, insert, select, update

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine


@dataclass(frozen=True)
class Triggerers:
    """Stores triggerers in a database, and removes them at the end.

    Attributes:
        engine: The database.
    """

    engine: Engine

    @contextmanager
    def running(self, *heartbeat_ages: float) -> Iterator[list[int]]:
        """Yield the ids of triggerers whose last heartbeats are so many seconds old."""
        now = datetime.now(timezone.utc)
        with self.engine.begin() as connection:
            first = (connection.scalar(select(func.max(Job.id))) or 0) + 1
            ids = [first + n for n in range(len(heartbeat_ages))]
            rows = [
                {
                    "id": job_id,
                    "job_type": "TriggererJob",
                    "state": "running",
                    "latest_heartbeat": now - timedelta(seconds=age),
                }
                for job_id, age in zip(ids, heartbeat_ages, strict=True)
            ]
            connection.execute(insert(Job.__table__), rows)
        yield ids
        with self.engine.begin() as connection:
            connection.execute(delete(Job).where(Job.id.in_(ids)))

    def assign(self, triggerer_id: int | None, age: float = 0, **columns: str) -> None:
        """Give all triggers to a triggerer, as if made so many seconds ago."""
        made = datetime.now(timezone.utc) - timedelta(seconds=age)
        values = {"triggerer_id": triggerer_id, "created_date": made, **columns}
        with self.engine.begin() as connection:
            connection.execute(update(Trigger.__table__).values(**values))
