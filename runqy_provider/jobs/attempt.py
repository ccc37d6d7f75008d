# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The record that an attempt of a task leaves for the next one."""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from runqy_provider.models import JobRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

#: Namespace of our ids. Another one would change the id of every attempt.
NAMESPACE = uuid.UUID("6f1d3f5e-6d0b-5c9e-9a53-2f1b7c0a4e11")


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
