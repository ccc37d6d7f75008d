# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Start an attempt of a task: its spec, its id, the previous attempt, its job.

A ``JobSpec`` says what the task asks of runqy, an ``Attempt`` which job one try of it
has enqueued for that. The record of an attempt tells the next one which job to wait
for.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import time
import uuid
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from runqy_delivery.wire import COMPLETED
from runqy_provider.airflow_compat import identity_of
from runqy_provider.client import models as job_states
from runqy_provider.client.models import JobOptions, plain_payload
from runqy_provider.client.queues import full_queue_name
from runqy_provider.connections import REDIS
from runqy_provider.errors import (
    DeliveryIdTaken,
    JobVanished,
    Misconfigured,
    NoAccess,
    ResultLost,
    SinkUnavailable,
    by_name,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.attempt_store import NAMESPACE, attempt_store
from runqy_provider.jobs.cancellation import delete_if_pending
from runqy_provider.jobs.telemetry import count_enqueued
from runqy_provider.jobs.waiting import look_once
from runqy_provider.models import ARRIVED, ERROR, JobRef
from runqy_provider.sinks.base import LATE_DELIVERY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow.sdk import Context
    from typing_extensions import Self

    from runqy_provider.jobs.attempt_store import AttemptStore
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.base import Sink

log = logging.getLogger(__name__)

#: States of a job that has not ended.
RUNNING = (
    job_states.PENDING,
    job_states.ACTIVE,
    job_states.RETRY,
    job_states.SCHEDULED,
)


@dataclass(frozen=True)
class JobSpec:
    """What a task asks of runqy.

    Attributes:
        runqy_conn_id: The connection.
        runqy_queue: The queue; without a dot, its default sub-queue.
        payload: What the handler receives.
        sink: Where the result is to be delivered.
        options: Other options of the job.
        deletes: Whether a job that no attempt waits for is deleted, if it has not
            started.
    """

    runqy_conn_id: str
    runqy_queue: str
    payload: Mapping[str, Any]
    sink: Sink
    options: JobOptions = field(default_factory=JobOptions)
    deletes: bool = True

    @property
    def full_queue(self) -> str:
        """Full name of the queue: ``parent.sub``."""
        return full_queue_name(self.runqy_queue)

    @functools.cached_property
    def digest(self) -> str:
        """Digest that is equal for two specs that ask for the same work.

        Raises:
            InvalidPayload: The payload is not a JSON object.
        """
        payload = plain_payload(self.payload, self.runqy_queue)
        asked = [self.runqy_conn_id, self.full_queue, self.sink.uri, payload]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def attempt(
        self, context: Context, deadline: float, *, chooses_id: bool = False
    ) -> Attempt:
        """Return the attempt of a task instance that asks for this, without a job yet.

        Args:
            context: The task instance's.
            deadline: Until when the result is waited for, in seconds since 1970.
            chooses_id: Whether the job will have the id of its delivery.
        """
        ti = context["ti"]
        delivery_id = self._delivery_id(context, ti.try_number)
        job = JobRef(
            delivery_id,
            self.sink.uri,
            job_id=delivery_id if chooses_id else None,
            runqy_queue=self.full_queue,
        )
        return Attempt(
            job,
            digest=self.digest,
            max_tries=ti.max_tries or 0,
            expires=deadline + LATE_DELIVERY,
            retries=ti.task.retries or 0,
        )

    def earlier_attempts(self, context: Context, attempt: Attempt) -> Iterator[Attempt]:
        """Yield the earlier attempts, as they were if they asked for the same.

        Args:
            context: The task instance's.
            attempt: The attempt that begins now.
        """
        for try_number in range(context["ti"].try_number - 1, 0, -1):
            delivery_id = self._delivery_id(context, try_number)
            chooses_id = attempt.job.job_id is not None
            job = dataclasses.replace(
                attempt.job,
                delivery_id=delivery_id,
                job_id=delivery_id if chooses_id else None,
            )
            yield attempt.with_job(job)

    def _delivery_id(self, context: Context, try_number: int) -> str:
        """Return the delivery id of one attempt to do this.

        A retry computes the same id for the attempt before it. No other task does, even
        if the run was deleted, created again or cleared, or if a second Airflow uses
        the bucket.
        """
        ti = context["ti"]
        # Only tests have runs without it; Airflow's id of the attempt replaces it
        # there.
        started = context["dag_run"].start_date or ti.id
        work = json.dumps([str(started), ti.max_tries or 0, self.digest])
        return delivery_id_of(identity_of(ti), try_number, work)


def delivery_id_of(identity: Sequence[str | int], try_number: int, work: str) -> str:
    """Return the delivery id of one attempt of one task instance.

    Args:
        identity: What ``identity_of`` says of the task instance.
        try_number: Number of the attempt.
        work: Distinguishes it from attempts with the same identity and number.
    """
    # JSON, so that different lists give different texts.
    return str(uuid.uuid5(NAMESPACE, json.dumps([*identity, try_number, work])))


@dataclass(frozen=True)
class Attempt:
    """One attempt of a task instance, and its job.

    Attributes:
        job: The job; its ``job_id`` is None while it is being enqueued.
        digest: Digest of what the attempt asked for; see ``JobSpec``.
        max_tries: The task instance's. Airflow raises it only when a user clears the
            task, which distinguishes a clear from a retry.
        expires: Until when the delivery is accepted, in seconds since 1970.
        is_abandoned: Whether later attempts must not wait for this job.
        retries: The task's, as its DAG had them.
    """

    job: JobRef
    digest: str
    max_tries: int
    expires: float
    is_abandoned: bool = False
    retries: int = 0

    def is_same_work(self, other: Attempt) -> bool:
        """Return whether another attempt asks for the same, without a clear between."""
        return (self.digest, self.max_tries) == (other.digest, other.max_tries)

    def with_job(self, job: JobRef) -> Attempt:
        return dataclasses.replace(self, job=job)

    def with_new_id(self) -> Attempt:
        """Return the attempt with a delivery id that no other attempt can have."""
        delivery_id = str(uuid.uuid4())
        job_id = None if self.job.job_id is None else delivery_id
        return self.with_job(
            dataclasses.replace(self.job, delivery_id=delivery_id, job_id=job_id)
        )

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self.job),
            "digest": self.digest,
            "max_tries": self.max_tries,
            "expires": self.expires,
            "is_abandoned": self.is_abandoned,
            "retries": self.retries,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read the record of an attempt, as ``to_json`` wrote it.

        Raises:
            KeyError: It lacks a field that every record has.
        """
        job = JobRef(
            record["delivery_id"],
            record["sink"],
            record.get("job_id"),
            record["runqy_queue"],
            record.get("enqueued_at", 0.0),
        )
        return cls(
            job,
            record["digest"],
            record["max_tries"],
            record["expires"],
            record["is_abandoned"],
            record.get("retries", 0),
        )


def reattach_or_submit(
    context: Context,
    settings: Settings,
    spec: JobSpec,
    *,
    deadline: float,
    reattach: bool = True,
) -> Attempt:
    """Return the attempt to wait for: the previous one, or one that begins now.

    Args:
        context: The task instance's.
        settings: The runqy connection and the options.
        spec: What the task asks for.
        deadline: Until when the result is waited for, in seconds since 1970.
        reattach: Whether to look for the job of the previous attempt.

    Raises:
        RunqyError: Neither is possible; the message says so if nothing was enqueued.
    """
    chooses_id = settings.connection.transport == REDIS
    attempt = spec.attempt(context, deadline, chooses_id=chooses_id)
    store = attempt_store(context, settings)
    with RunqyHook.from_settings(settings) as hook:
        for previous in previous_attempts(store, spec, context, attempt):
            found = _reattach(hook, previous, attempt) if reattach else None
            if found is not None:
                update(store, found)
                return found
            job = previous.job
            if spec.deletes and job.job_id is not None:
                # No attempt waits for it any more, and it must not run together with
                # the new job.
                log.info(delete_if_pending(hook, job.runqy_queue or "", job.job_id))
        try:
            attempt = _submit(hook, store, spec, attempt, deadline)
        except DeliveryIdTaken as error:
            log.warning("%s Another id is used for this attempt.", error)
            attempt = _submit(hook, store, spec, attempt.with_new_id(), deadline)
    job = attempt.job
    count_enqueued(job)
    log.info(
        "Enqueued job %s in queue %r; its result goes to %r as delivery %s.",
        job.job_id,
        job.runqy_queue,
        job.sink,
        job.delivery_id,
    )
    return attempt


def _submit(
    hook: RunqyHook,
    store: AttemptStore | None,
    spec: JobSpec,
    attempt: Attempt,
    deadline: float,
) -> Attempt:
    if store is not None:
        store.write(attempt.to_json(), attempt.expires)
    job = hook.submit(
        spec.sink,
        runqy_queue=spec.runqy_queue,
        payload=spec.payload,
        delivery_id=attempt.job.delivery_id,
        deadline=deadline,
        options=spec.options,
    )
    attempt = attempt.with_job(job)
    update(store, attempt)
    return attempt


def update(store: AttemptStore | None, attempt: Attempt) -> None:
    """Store the record of an attempt that has its job, if the store is available.

    The job is enqueued by now, so a missing record must not fail the task.
    """
    if store is None:
        return
    try:
        store.write(attempt.to_json(), attempt.expires)
    except (SinkUnavailable, NoAccess) as error:
        log.warning("A retry will not find the job of this attempt: %s", error)


def abandon(store: AttemptStore | None) -> None:
    """Record that later attempts must not wait for the job of this one."""
    try:
        for attempt in recorded(store):
            update(store, dataclasses.replace(attempt, is_abandoned=True))
    except (SinkUnavailable, NoAccess) as error:
        log.warning("A retry will wait for the job of this attempt: %s", error)


def recorded(store: AttemptStore | None) -> list[Attempt]:
    """Return the attempt of which there is a record, if there is one.

    Raises:
        SinkUnavailable: The store is unavailable.
    """
    record = None if store is None else store.read()
    try:
        return [] if record is None else [Attempt.from_json(record)]
    except KeyError:
        return []


def previous_attempts(
    store: AttemptStore | None, spec: JobSpec, context: Context, attempt: Attempt
) -> Iterable[Attempt]:
    """Return the earlier attempts of the task, the latest first."""
    if store is None:
        return spec.earlier_attempts(context, attempt)
    return recorded(store)


def _reattach(hook: RunqyHook, previous: Attempt, attempt: Attempt) -> Attempt | None:
    if previous.is_abandoned or not previous.is_same_work(attempt):
        return None
    found = find_previous(hook, previous, attempt)
    if found is not None:
        log.info(
            "Job %s of the previous attempt has not ended, or its result has arrived: "
            "waiting for its delivery %s, nothing is enqueued.",
            found.job.job_id or "(of unknown id)",
            found.job.delivery_id,
        )
    return found


def find_previous(
    hook: RunqyHook, previous: Attempt, attempt: Attempt
) -> Attempt | None:
    """Return the previous attempt with its job, if it is worth waiting for.

    Args:
        hook: The runqy server.
        previous: The previous attempt.
        attempt: The attempt that begins now.

    Returns:
        None if a new job must be enqueued: nothing was enqueued, or the job failed, was
        deleted or is forgotten, and left no result.

    Raises:
        ServerUnavailable: runqy cannot be asked, so nothing may be enqueued.
        SinkError: The sink cannot be asked; likewise nothing may be enqueued.
    """
    redis = hook.settings.runqy_redis
    job = previous.job
    # Without runqy's Redis the job is not found; its result may have arrived, though.
    if job.job_id is None and redis is not None:
        from runqy_provider.client.find_job import (  # noqa: PLC0415 - rarely needed
            find_job,
        )

        job_id = find_job(redis, job.runqy_queue or "", job.delivery_id)
        job = dataclasses.replace(job, job_id=job_id)
        previous = previous.with_job(job)
    try:
        has_result = _has_result(hook, previous)
    except SinkUnavailable as error:
        log.warning("The result of the previous attempt is not known: %s", error)
        has_result = None  # the job has not ended: wait for it anyway
    # A result and a changed number of retries mean that a user cleared the task:
    # max_tries alone may come out the same, as Airflow adds the retries to it.
    is_cleared = previous.retries != attempt.retries
    if has_result is not None:
        return previous if has_result and not is_cleared else None
    if job.job_id is not None:
        if previous.expires <= time.time():
            log.info("The previous job may not deliver any more: its URL has expired.")
            return None
        if _is_running(hook, job.job_id):
            return previous
    # It may have ended between the two looks.
    return previous if _has_result(hook, previous) and not is_cleared else None


def _is_running(hook: RunqyHook, job_id: str) -> bool:
    try:
        return hook.get_job(job_id).state in RUNNING
    except JobVanished:
        return False


def _has_result(hook: RunqyHook, previous: Attempt) -> bool | None:
    """Return whether a result has arrived: False for a failure, None for nothing yet.

    Raises:
        SinkUnavailable: That cannot be read at the moment: a new job might lose the
            result.
        SinkError: Any other error of the sink.
    """
    job = previous.job
    event = look_once(hook.settings, job)
    if event.kind == ERROR:
        error = by_name(event.error)
        # Some sinks cannot look without a job's id.
        has_no_job = issubclass(error, Misconfigured) and job.job_id is None
        if issubclass(error, (JobVanished, ResultLost)) or has_no_job:
            return None
        raise error(event.message)
    if event.kind == ARRIVED:
        return event.status == COMPLETED
    if event.unreadable_because:
        raise SinkUnavailable(
            "The previous attempt may have left its result (delivery "
            f"{job.delivery_id}) at {job.sink!r}, which cannot be read at the moment, "
            f"so nothing was enqueued: {event.unreadable_because}"
        )
    return None
