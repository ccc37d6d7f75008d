# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a task asks of runqy, and the ids that this has."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runqy_provider.client.job_options import JobOptions
from runqy_provider.client.payload import plain_payload
from runqy_provider.client.queues import full_queue_name
from runqy_provider.hooks.delivery_fields import LATE_DELIVERY
from runqy_provider.jobs.attempt import NAMESPACE, Attempt, identity_of
from runqy_provider.models import JobRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from airflow.sdk import Context

    from runqy_provider.sinks.base import Sink


@dataclass(frozen=True)
class JobSpec:
    """What a task asks of runqy.

    Attributes:
        runqy_conn_id: The connection.
        runqy_queue: The queue; without a dot, its default sub-queue.
        payload: What the handler receives.
        sink: Where the result is to be delivered.
        options: What else is asked for the job.
        deletes: Whether a job that is no longer waited for is deleted, if it has not
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

    @property
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
        """Yield what the earlier attempts would have been that asked for the same.

        Args:
            context: The task instance's.
            attempt: The one that begins now.
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

        A later attempt of the task can compute it, and no other task: also not that of
        a run which was deleted and created again, or cleared, or of another Airflow
        that shares a bucket.
        """
        ti = context["ti"]
        # A run is without it in tests only; then Airflow's id of the attempt must do.
        started = context["dag_run"].start_date or ti.id
        work = json.dumps([str(started), ti.max_tries or 0, self.digest])
        return delivery_id_of(identity_of(ti), try_number, work)


def delivery_id_of(identity: Sequence[str | int], try_number: int, work: str) -> str:
    """Return the delivery id of one attempt of one task instance.

    Args:
        identity: What ``identity_of`` says of the task instance.
        try_number: Number of the attempt.
        work: Tells it from attempts with the same identity and number.
    """
    # JSON, so that no two different lists give the same text.
    return str(uuid.uuid5(NAMESPACE, json.dumps([*identity, try_number, work])))
