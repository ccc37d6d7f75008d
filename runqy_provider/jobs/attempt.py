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


def map_index_of(ti: Any) -> int:
    """Return the index of a mapped task; -1 if it is not mapped."""
    return -1 if ti.map_index is None else int(ti.map_index)


def identity_of(ti: Any) -> list[str | int]:
    """Return what tells a task instance from all others, the same for all its tries.

    Since Airflow 3.4 a task of a loop runs several times in a DAG run; its region and
    its index there tell the iterations apart, as in Airflow's own task state store.
    """
    identity = [ti.dag_id, ti.run_id, ti.task_id, map_index_of(ti)]
    region = getattr(ti, "region_id", None)
    if region is not None and region.int:
        identity += [str(region), ti.region_index]
    return identity


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

    def with_new_id(self) -> Attempt:
        """Return the attempt with a delivery id that no other attempt can have."""
        delivery_id = str(uuid.uuid4())
        job_id = None if self.job.job_id is None else delivery_id
        return self.with_job(
            dataclasses.replace(self.job, delivery_id=delivery_id, job_id=job_id)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the attempt as plain JSON."""
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
            record["is_abandoned"],
            record.get("retries", 0),
        )
