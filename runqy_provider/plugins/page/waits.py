# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The tasks that wait for a delivery, as Airflow's database has them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import case, null, select
from sqlalchemy.orm import lazyload, load_only

from runqy_provider.airflow_compat import resolve
from runqy_provider.checks import OK
from runqy_provider.checks.airflow_database import find_triggerer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sqlalchemy.orm import Session

#: The class paths of the triggers that wait, which Airflow's database stores.
CLASS_PATHS = (
    "runqy_provider.triggers.delivery.DeliveryTrigger",
    "runqy_provider.triggers.batch.BatchTrigger",
)

#: How many are listed at most: all are held in memory.
MOST_WAITS = 20_000

#: The most rows of a page.
MOST_ROWS = 100

#: How many triggers are read by one query.
TRIGGERS_PER_QUERY = 500

#: A trigger, by its id and the time when it was made: SQLite reuses ids.
_TriggerKey = tuple[int, float]


@dataclass(frozen=True, slots=True)
class Wait:
    """One task that waits.

    Attributes:
        key: Id of the task instance.
        dag_id: Its DAG.
        run_id: Its run.
        task_id: Its task.
        map_index: Its index, if it is mapped; else -1.
        iteration: Of the loop that it is in, from 0; None outside.
        region_id: What Airflow's pages call its place in a loop; empty if they do not
            ask for it.
        region_index: Its index there.
        since: When it began to wait, in seconds since 1970.
        conn_id: The runqy connection.
        delivery_id: What it waits for; for a batch, the id of the batch.
        sink: The sink's URI.
        runqy_queue: Queue of the job; empty if it is not known.
        job_id: runqy's id of the job; empty if it is not known.
        deadline: When it gives up, in seconds since 1970; 0 if it is not known.
    """

    key: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    iteration: int | None
    region_id: str
    region_index: int
    since: float
    conn_id: str
    delivery_id: str
    sink: str
    runqy_queue: str
    job_id: str
    deadline: float


@dataclass(frozen=True)
class Waits:
    """All waiting tasks, the oldest first.

    Attributes:
        rows: The tasks.
        is_complete: False if there are more than are listed.
        triggerer_problem: Why no triggerer takes them; empty if one does.
    """

    rows: Sequence[Wait]
    is_complete: bool = True
    triggerer_problem: str = ""


class WaitReader:
    """Reads the waiting tasks; the arguments of a trigger, which never change, once."""

    def __init__(self) -> None:
        self._arguments: dict[_TriggerKey, Mapping[str, Any]] = {}

    def read(self) -> Waits:
        """Return all that wait now, in the calling thread."""
        with create_session() as session:
            triggerer = find_triggerer(session)
            found = _deferred(session)
            keys = [(row.trigger_id, row.created_date.timestamp()) for row in found]
            known = self._arguments
            new = [key for key in keys if key not in known]
            read = dict(_arguments_of(session, [trigger_id for trigger_id, _ in new]))
        # A trigger that is missing has fired since.
        arguments = {key: known.get(key) or read.get(key[0]) for key in keys}
        self._arguments = {k: v for k, v in arguments.items() if v is not None}
        rows = [
            _wait(row, key[1], given)
            for row, key in zip(found, keys, strict=True)
            if (given := self._arguments.get(key)) is not None
        ]
        return Waits(
            rows[:MOST_WAITS],
            is_complete=len(rows) <= MOST_WAITS,
            triggerer_problem="" if triggerer.status == OK else triggerer.message,
        )


def _deferred(session: Session) -> Sequence[Any]:
    statement = (
        select(
            TaskInstance.id,
            TaskInstance.dag_id,
            TaskInstance.run_id,
            TaskInstance.task_id,
            *_position(),
            TaskInstance.trigger_id,
            Trigger.created_date,
        )
        .join(Trigger, TaskInstance.trigger_id == Trigger.id)
        .where(TaskInstance.state == TaskInstanceState.DEFERRED)
        .where(Trigger.classpath.in_(CLASS_PATHS))
        .order_by(Trigger.created_date, TaskInstance.id)
        .limit(MOST_WAITS + 1)
    )
    return session.execute(statement).all()


def _position() -> Sequence[Any]:
    """Return the columns that say which of the instances of its task a row is.

    The map index is -1 if the task is not mapped; the others are NULL outside regions,
    and before Airflow 3.4, which has loops.
    """
    try:
        regions = resolve("airflow.models.dynamic_region")
    except ImportError:
        more = (null().label(n) for n in ("region_id", "region_index", "iteration"))
        return [TaskInstance.map_index, *more]
    find_index = resolve("airflow.models.task_coordinates:public_map_index_expression")
    map_index = find_index(TaskInstance)
    in_region = TaskInstance.region_id != regions.SENTINEL_REGION_ID
    # A mapped task has a region of its own, within that of an iteration.
    iteration_of_mapped = (
        select(regions.DynamicRegion.parent_region_index)
        .where(regions.DynamicRegion.id == TaskInstance.region_id)
        .scalar_subquery()
    )
    return [
        map_index.label("map_index"),
        case((in_region, TaskInstance.region_id)).label("region_id"),
        case((in_region, TaskInstance.region_index)).label("region_index"),
        case(
            (map_index >= 0, iteration_of_mapped),
            (in_region, TaskInstance.region_index),
        ).label("iteration"),
    ]


def _arguments_of(
    session: Session, ids: Sequence[int]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the arguments of triggers, decrypted if Airflow has encrypted them."""
    for start in range(0, len(ids), TRIGGERS_PER_QUERY):
        statement = (
            select(Trigger)
            .where(Trigger.id.in_(ids[start : start + TRIGGERS_PER_QUERY]))
            .options(
                load_only(Trigger.id, Trigger.encrypted_kwargs),
                lazyload(Trigger.task_instance),
            )
        )
        for trigger in session.scalars(statement):
            yield trigger.id, trigger.kwargs


def _wait(row: Any, since: float, given: Mapping[str, Any]) -> Wait:
    batch = given.get("batch")
    if batch is not None:
        given = {**given, **batch, "delivery_id": batch["batch_id"]}
    return Wait(
        key=str(row.id),
        dag_id=row.dag_id,
        run_id=row.run_id,
        task_id=row.task_id,
        map_index=row.map_index,
        iteration=row.iteration,
        region_id=str(row.region_id or ""),
        region_index=-1 if row.region_index is None else row.region_index,
        since=since,
        conn_id=str(given.get("runqy_conn_id") or ""),
        delivery_id=str(given.get("delivery_id") or ""),
        sink=str(given.get("sink") or ""),
        runqy_queue=str(given.get("runqy_queue") or ""),
        job_id=str(given.get("job_id") or ""),
        deadline=float(given.get("deadline") or 0),
    )


class Filter(BaseModel):
    """What to list: the query of a request.

    Attributes:
        text: Part of a DAG, run, task, job or delivery id, in upper or lower case;
            empty: all.
        queue: A queue; empty: all.
        order: Which tasks come first: those that wait longest, or shortest.
        offset: How many to skip.
        limit: How many to list.
    """

    text: Annotated[str, StringConstraints(strip_whitespace=True, max_length=250)] = ""
    queue: str = Field("", max_length=250)
    order: Literal["oldest", "newest"] = "oldest"
    offset: int = Field(0, ge=0)
    limit: int = Field(50, ge=1, le=MOST_ROWS)


def list_waits(
    waits: Sequence[Wait], dag_ids: Collection[str], wanted: Filter
) -> dict[str, Any]:
    """Return one page.

    Args:
        waits: All waiting tasks, the oldest first.
        dag_ids: The DAGs that the user may read.
        wanted: What to list.

    Returns:
        The tasks on it (``rows``), how many come before them (``offset``: fewer than
        was asked for, if the list is shorter), how many match the filter (``matching``)
        and how many wait in all (``total``) and by queue (``queues``), of those that
        the user may see.
    """
    visible = [wait for wait in waits if wait.dag_id in dag_ids]
    matching = [wait for wait in visible if _matches(wait, wanted)]
    if wanted.order == "newest":
        matching.reverse()
    last = max(0, (len(matching) - 1) // wanted.limit * wanted.limit)
    offset = min(wanted.offset, last)
    by_queue = Counter(wait.runqy_queue for wait in visible)
    return {
        "total": len(visible),
        "matching": len(matching),
        "offset": offset,
        "queues": [{"name": n, "waits": by_queue[n]} for n in sorted(by_queue)],
        "rows": matching[offset : offset + wanted.limit],
    }


def _matches(wait: Wait, wanted: Filter) -> bool:
    if wanted.queue and wait.runqy_queue != wanted.queue:
        return False
    text = wanted.text.lower()
    ids = (wait.dag_id, wait.task_id, wait.run_id, wait.job_id, wait.delivery_id)
    return not text or any(text in one.lower() for one in ids)
