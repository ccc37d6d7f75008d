# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What an attempt of a task leaves for the next one, in Airflow's task state store.

Written before the job is enqueued, so that whatever dies in between leaves a trace.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from runqy_provider.models import Submission

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Key in the task state store.
ATTEMPT_KEY = "runqy_attempt"


@dataclass(frozen=True)
class Attempt:
    """One attempt of a task instance and its job.

    Attributes:
        delivery_id: Id of its delivery.
        digest: What it asked for; see ``digest_of``.
        max_tries: The task instance's. Airflow raises it when a user clears the task
            and at no other time: it tells a clear from a retry.
        runqy_queue: The queue, by its full name.
        sink: The sink's URI.
        expires: Until when its delivery is taken, in seconds since 1970.
        job_id: runqy's id; None while the job is being enqueued.
        enqueued_at: When, in seconds since 1970.
        is_given_up: True where no later attempt is to wait for this job.
        retries: The task's, as its DAG had them.
    """

    delivery_id: str
    digest: str
    max_tries: int
    runqy_queue: str
    sink: str
    expires: float
    job_id: str | None = None
    enqueued_at: float = 0.0
    is_given_up: bool = False
    retries: int = 0

    def is_same_work(self, other: Attempt) -> bool:
        """Tell whether another attempt asks for the same, and no user came between."""
        return (self.digest, self.max_tries) == (other.digest, other.max_tries)

    def with_job(self, submission: Submission) -> Attempt:
        """Return it with the job that was enqueued."""
        return dataclasses.replace(
            self,
            job_id=submission.job_id,
            runqy_queue=submission.runqy_queue,
            enqueued_at=submission.enqueued_at,
        )

    def submission(self) -> Submission:
        """Return the job that it enqueued."""
        return Submission(
            job_id=self.job_id or "",
            delivery_id=self.delivery_id,
            runqy_queue=self.runqy_queue,
            sink=self.sink,
            enqueued_at=self.enqueued_at,
        )


def read_attempt(context: Context) -> Attempt | None:
    """Return what the attempt before left; None where that is nothing we know."""
    kept: Any = context["task_state_store"].get(ATTEMPT_KEY)
    if not isinstance(kept, dict):
        return None
    # Another version of this provider may know more fields, or fewer.
    known = {field.name for field in dataclasses.fields(Attempt)}
    try:
        return Attempt(**{name: kept[name] for name in known & kept.keys()})
    except TypeError:
        return None


def give_up_attempt(context: Context) -> None:
    """Record that no later attempt is to wait for the job of this one."""
    attempt = read_attempt(context)
    if attempt is not None:
        keep_attempt(context, dataclasses.replace(attempt, is_given_up=True))


def keep_attempt(context: Context, attempt: Attempt) -> None:
    """Leave an attempt for the next one."""
    context["task_state_store"].set(ATTEMPT_KEY, asdict(attempt))
