# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The record that an attempt of a task leaves for the next one.

It is in Airflow's task state store, and is written before the job is enqueued: so there
is a trace of it, whatever fails in between.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from runqy_provider.models import JobRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

#: Key in the task state store.
ATTEMPT_KEY = "runqy_attempt"


@dataclass(frozen=True)
class Attempt:
    """One attempt of a task instance, and its job.

    Attributes:
        job: The job; its ``job_id`` is None while it is being enqueued.
        digest: Digest of what the attempt asked for; see ``JobSpec``.
        max_tries: The task instance's. Airflow raises it when a user clears the task
            and at no other time, which tells a clear from a retry.
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
        """Return the attempt with the job that it enqueued."""
        return dataclasses.replace(self, job=job)

    def to_json(self) -> dict[str, Any]:
        """Return the attempt as plain JSON."""
        return {
            **asdict(self.job),
            "digest": self.digest,
            "max_tries": self.max_tries,
            "expires": self.expires,
            "is_given_up": self.is_abandoned,
            "retries": self.retries,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read the record of an attempt, also one of another version of this provider.

        Raises:
            KeyError: It lacks what every record has.
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
            record.get("is_given_up", False),
            record.get("retries", 0),
        )


def read_attempt(context: Context) -> Attempt | None:
    """Return what the previous attempt left; None where there is no such record."""
    record: Any = context["task_state_store"].get(ATTEMPT_KEY)
    if not isinstance(record, dict):
        return None
    try:
        return Attempt.from_json(record)
    except KeyError:
        return None


def abandon_attempt(context: Context) -> None:
    """Record that later attempts must not wait for the job of this one."""
    attempt = read_attempt(context)
    if attempt is not None:
        save_attempt(context, dataclasses.replace(attempt, is_abandoned=True))


def save_attempt(context: Context, attempt: Attempt) -> None:
    """Write the record for the next attempt."""
    context["task_state_store"].set(ATTEMPT_KEY, attempt.to_json())
