"""A runqy server in memory, behind RunqyHook, whose jobs deliver into a folder."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runqy_delivery import delivers
from runqy_provider.client import find_job
from runqy_provider.client.models import COMPLETED, PENDING, RETRY, Job
from runqy_provider.client.queues import full_queue_name
from runqy_provider.errors import JobVanished
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.batch import deletion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pytest

    Payload = Mapping[str, Any]


class FakeRunqy:
    """What RunqyHook asks a server, answered from memory; the rest of it is real.

    Attributes:
        jobs: The jobs that there are, by their ids.
        enqueued: The ids of all jobs that were ever enqueued, in order.
        chunks: How many jobs each request of a batch has enqueued.
        error: What every request raises instead, if anything.
        lost: What an enqueue raises after it has enqueued, if anything.
        handler: Task code that runs each job as soon as it is enqueued, if any.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.enqueued: list[str] = []
        self.chunks: list[int] = []
        self.error: Exception | None = None
        self.lost: BaseException | None = None
        self.handler: Callable[[Any], Any] | None = None
        self._ids = (f"job-{number}" for number in itertools.count())

    def serve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Answer what hooks ask until the end of the test."""
        for name in ("enqueue", "enqueue_batch", "get_job", "delete_job"):
            monkeypatch.setattr(RunqyHook, name, getattr(self, name))
        monkeypatch.setattr(RunqyHook, "delete_pending", self.delete_pending)
        monkeypatch.setattr(find_job, "find_job", self.find_job)
        monkeypatch.setattr(deletion, "find_waiting", self.find_waiting)

    def enqueue(
        self, queue: str, payload: Payload, *, job_id: str | None = None, **_: Any
    ) -> Job:
        self._check()
        job = self._add(queue, payload, job_id)
        if self.lost is not None:
            raise self.lost
        return job

    def enqueue_batch(
        self, queue: str, jobs: Sequence[tuple[str | None, Payload]], _: Any = None
    ) -> list[str]:
        self._check()
        self.chunks.append(len(jobs))
        ids = [self._add(queue, payload, job_id).job_id for job_id, payload in jobs]
        if self.lost is not None:
            raise self.lost
        return ids

    def get_job(self, job_id: str) -> Job:
        self._check()
        if job_id not in self.jobs:
            raise JobVanished(f"runqy has forgotten job {job_id}.")
        return self.jobs[job_id]

    def delete_job(self, _queue: str, job_id: str) -> bool:
        del self.jobs[self.get_job(job_id).job_id]
        return True

    def delete_pending(self, _queue: str, job_ids: Sequence[str]) -> int:
        self._check()
        found = [job_id for job_id in job_ids if job_id in self._waiting()]
        for job_id in found:
            del self.jobs[job_id]
        return len(found)

    def find_job(self, _redis: Any, _queue: str, delivery_id: str) -> str | None:
        self._check()
        found = (each for each in self.jobs if delivery_id in self._text(each))
        return next(found, None)

    def find_waiting(self, _redis: Any, _queue: str, batch_id: str) -> list[str]:
        self._check()
        return [each for each in self._waiting() if batch_id in self._text(each)]

    def set_state(self, job_id: str, state: str) -> None:
        """Let runqy say that a job is in a state."""
        self.jobs[job_id] = replace(self.jobs[job_id], state=state)

    def run(self, job_id: str, handler: Callable[[Any], Any]) -> None:
        """Run a job as a worker does: what it delivers goes into the folder."""
        delivers(handler)(self.jobs[job_id].payload)
        self.set_state(job_id, COMPLETED)

    def _add(self, queue: str, payload: Payload, job_id: str | None) -> Job:
        job_id = job_id or next(self._ids)
        if job_id in self.enqueued:
            return self.jobs[job_id]
        self.enqueued.append(job_id)
        self.jobs[job_id] = Job(job_id, full_queue_name(queue), PENDING, payload)
        if self.handler is not None:
            self.run(job_id, self.handler)
        return self.jobs[job_id]

    def _text(self, job_id: str) -> str:
        return str(self.jobs[job_id].payload)

    def _waiting(self) -> list[str]:
        jobs = self.jobs.values()
        return [job.job_id for job in jobs if job.state in (PENDING, RETRY)]

    def _check(self) -> None:
        if self.error is not None:
            raise self.error
