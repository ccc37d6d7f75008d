# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What Airflow's own database says about a copied connection, and about triggerers.

Only processes for which ``airflow_compat.may_ask_database`` is true may ask it.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from airflow.jobs.job import Job
from airflow.models.connection import Connection as StoredConnection
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from runqy_provider.airflow_compat import column_of, conf
from runqy_provider.checks import OK, WARNING, CheckResult
from runqy_provider.connections import extra_of
from runqy_provider.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from airflow.sdk import Connection
    from sqlalchemy.orm import Session

    from runqy_provider.connections import ConnectionLike

SUBJECT = "Triggerer"

#: How many triggerers are looked at; rows of those that ended stay in the database.
MOST_TRIGGERERS = 200

#: A triggerer takes a few new triggers once per second.
GRACE = timedelta(seconds=60)


def stored_conn_id(connection: Connection) -> str | None:
    """Return the id under which Airflow's database has a connection like this one.

    Args:
        connection: A connection, perhaps under a temporary id.

    Returns:
        Its own id if that is stored. Else the id of the only stored runqy connection
        with the same fields; None if there is none, or more than one, or the database
        cannot be asked.
    """
    statement = select(StoredConnection).where(StoredConnection.conn_type == "runqy")
    try:
        with create_session() as session:
            stored = list(session.scalars(statement))
            if any(each.conn_id == connection.conn_id for each in stored):
                return connection.conn_id
            wanted = _fields(connection)
            same = [each.conn_id for each in stored if _fields(each) == wanted]
    except SQLAlchemyError:
        return None
    return same[0] if len(same) == 1 else None


def _fields(connection: ConnectionLike) -> Mapping[str, Any] | None:
    """Return what makes two connections the same, as texts: a URI has only texts."""
    try:
        extra = extra_of(connection)
    except Misconfigured:
        return None
    given = {
        name: str(value) for name, value in extra.items() if value not in ("", None)
    }
    return {
        "host": connection.host or "",
        "port": connection.port or 0,
        "password": connection.password or "",
        **given,
    }


def database_error() -> str | None:
    """Return why this machine cannot read connections from Airflow's database.

    Returns:
        The class of the error; None if the database answers.
    """
    try:
        with create_session() as session:
            session.execute(select(StoredConnection.id).limit(1))
    except SQLAlchemyError as error:
        return type(error).__name__
    return None


def check_triggerer() -> Iterator[CheckResult]:
    """Check that a triggerer takes deferred tasks; nothing if that is not known."""
    try:
        with create_session() as session:
            yield find_triggerer(session)
    except SQLAlchemyError:
        # A machine that has no access to the database, such as one with a worker.
        return


def find_triggerer(session: Session) -> CheckResult:
    """Return whether triggerers run, by their heartbeats, and have capacity.

    Args:
        session: A session of Airflow's database.
    """
    statement = select(Job).where(
        Job.job_type == "TriggererJob", Job.latest_heartbeat.is_not(None)
    )
    newest = statement.order_by(Job.latest_heartbeat.desc()).limit(MOST_TRIGGERERS)
    jobs = session.scalars(newest).all()
    alive = [job.id for job in jobs if job.end_date is None and job.is_alive()]
    if not alive:
        seen = ""
        if jobs:
            seen = (
                f" (last heartbeat: {jobs[0].latest_heartbeat:%Y-%m-%d %H:%M:%S} UTC)"
            )
        return CheckResult(
            SUBJECT,
            WARNING,
            f"No triggerer of Airflow runs{seen}, so tasks that wait for a result do "
            "not continue. Start one: airflow triggerer.",
        )
    problem = _capacity_problem(session, alive)
    if problem:
        return CheckResult(SUBJECT, WARNING, problem)
    return CheckResult(SUBJECT, OK, f"{_live(len(alive))}, and takes deferred tasks.")


def _capacity_problem(session: Session, alive: Sequence[int]) -> str:
    """Return why no triggerer takes a deferred task; empty if one does."""
    counts = session.execute(
        select(Trigger.triggerer_id, func.count(Trigger.id).label("triggers"))
        .where(Trigger.triggerer_id.in_(alive))
        .group_by(Trigger.triggerer_id)
    )
    assigned = {row.triggerer_id: row.triggers for row in counts}
    oldest = session.execute(
        select(Trigger.created_date, column_of(Trigger, "queue"))
        .join(TaskInstance, TaskInstance.trigger_id == Trigger.id)
        .where(TaskInstance.state == TaskInstanceState.DEFERRED)
        .where(or_(Trigger.triggerer_id.is_(None), Trigger.triggerer_id.not_in(alive)))
        .order_by(Trigger.created_date)
        .limit(1)
    ).first()
    capacity = conf.getint("triggerer", "capacity")
    waits = ""
    if oldest is not None:
        age = datetime.now(timezone.utc) - oldest.created_date
        waits = f" A deferred task has waited for one for {age.total_seconds():.0f} s."
    if all(assigned.get(one, 0) >= capacity for one in alive):
        return (
            f"{_live(len(alive))}, but without capacity: {sum(assigned.values()):,} "
            f"triggers run, and [triggerer] capacity is {capacity:,} for each.{waits} "
            "Start another triggerer, or raise the capacity."
        )
    if oldest is None or age < GRACE:
        return ""
    if oldest.queue is not None:
        return (
            f"{_live(len(alive))}, but none for the queue {oldest.queue!r}.{waits} "
            f"Start one: airflow triggerer --queues {oldest.queue}."
        )
    return (
        f"{_live(len(alive))}, but does not take all deferred tasks.{waits} See the "
        "triggerer's log. One that was started with --queues takes only tasks of these."
    )


def _live(count: int) -> str:
    return "A triggerer runs" if count == 1 else f"{count} triggerers run"
