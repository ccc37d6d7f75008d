"""Tasks that wait for a delivery, as rows of Airflow's database."""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from sqlalchemy import delete, func, insert, select

from runqy_provider.airflow_compat import RELEASE
from runqy_provider.triggers.delivery import DeliveryTrigger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine

RUN_ID = "manual__2030-01-31T00:00:00"


@dataclass(frozen=True)
class WaitingTasks:
    """Common fields of some waiting tasks; each is one index of a mapped task.

    Attributes:
        dag_id: Their DAG.
        count: How many there are.
        conn_id: The runqy connection.
        queues: Their queues, in turn.
        bundle: The bundle of the DAG.
        is_encrypted: Whether Airflow has encrypted the triggers' arguments.
    """

    dag_id: str
    count: int = 1
    conn_id: str = "runqy_default"
    queues: Sequence[str] = ("speech.default",)
    bundle: str = "dags-folder"
    is_encrypted: bool = False

    def delivery_id(self, index: int) -> str:
        """Return what one of them waits for."""
        return f"{self.dag_id}-{index}"

    @contextmanager
    def inserted(self, engine: Engine) -> Iterator[None]:
        """Store them in a database, and remove them at the end."""
        tables = (TaskInstance, DagRun, DagModel)
        with engine.begin() as connection:
            first = (connection.scalar(select(func.max(Trigger.id))) or 0) + 1
            bundles = connection.scalars(select(DagBundleModel.name)).all()
            if self.bundle not in bundles:
                connection.execute(insert(DagBundleModel).values(name=self.bundle))
            connection.execute(insert(DagModel).values(**self._dag()))
            connection.execute(insert(DagRun).values(**self._run(connection)))
            connection.execute(insert(Trigger.__table__), self._triggers(first))
            connection.execute(insert(TaskInstance), self._task_instances(first))
        yield
        with engine.begin() as connection:
            for table in tables:
                connection.execute(delete(table).where(table.dag_id == self.dag_id))
            last = first + self.count
            connection.execute(delete(Trigger).where(Trigger.id.between(first, last)))

    def _dag(self) -> dict[str, Any]:
        return {
            "dag_id": self.dag_id,
            "bundle_name": self.bundle,
            "max_active_tasks": 16,
            "max_consecutive_failed_dag_runs": 0,
            "has_task_concurrency_limits": False,
        }

    def _run(self, connection: Any) -> dict[str, Any]:
        return {
            "id": (connection.scalar(select(func.max(DagRun.id))) or 0) + 1,
            "dag_id": self.dag_id,
            "run_id": RUN_ID,
            "run_type": "manual",
            "run_after": datetime.now(timezone.utc),
            "state": "running",
        }

    def _triggers(self, first: int) -> list[dict[str, Any]]:
        now = datetime.now(timezone.utc)
        rows = []
        for index in range(self.count):
            since = now - timedelta(seconds=self.count - index)
            trigger = DeliveryTrigger(
                runqy_conn_id=self.conn_id,
                delivery_id=self.delivery_id(index),
                sink="webhook",
                deadline=(since + timedelta(days=1)).timestamp(),
                job_id=str(uuid.uuid4()),
                runqy_queue=self.queues[index % len(self.queues)],
            )
            path, arguments = trigger.serialize()
            text = json.dumps(arguments)
            # Before 3.3 Airflow always encrypts them.
            if self.is_encrypted or RELEASE < (3, 3):
                text = Trigger.encrypt_kwargs(arguments)
            rows.append(
                {
                    "id": first + index,
                    "classpath": path,
                    "kwargs": text,
                    "created_date": since,
                }
            )
        return rows

    def _task_instances(self, first: int) -> list[dict[str, Any]]:
        return [
            {
                "id": uuid.uuid4() if RELEASE >= (3, 2) else str(uuid.uuid4()),
                "dag_id": self.dag_id,
                "run_id": RUN_ID,
                "task_id": "transcribe",
                # What 3.4 calls the column.
                "map_index" if RELEASE < (3, 4) else "region_index": index,
                "pool": "default_pool",
                "state": "deferred",
                "trigger_id": first + index,
            }
            for index in range(self.count)
        ]
