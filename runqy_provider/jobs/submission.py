# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a task asks of runqy, and the ids that this has."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runqy_provider.client.payload import plain_payload
from runqy_provider.hooks.runqy import LATE_DELIVERY
from runqy_provider.jobs.attempt import Attempt
from runqy_provider.models import JobRef

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from airflow.sdk import Context

    from runqy_provider.sinks.base import Sink

#: Namespace of our delivery ids. Another one would change the id of every attempt.
NAMESPACE = uuid.UUID("6f1d3f5e-6d0b-5c9e-9a53-2f1b7c0a4e11")


@dataclass(frozen=True)
class JobSpec:
    """What a task asks of runqy.

    Attributes:
        runqy_conn_id: The connection.
        runqy_queue: The queue; without a dot, its default sub-queue.
        payload: What the handler receives.
        sink: Where the result is to be delivered.
        job_timeout: Timeout that runqy stores with the job, in seconds.
        deletes: Whether a job that is no longer waited for is deleted, if it has not
            started.
    """

    runqy_conn_id: str
    runqy_queue: str
    payload: Mapping[str, Any]
    sink: Sink
    job_timeout: float | None = None
    deletes: bool = True

    @property
    def full_queue(self) -> str:
        """Full name of the queue: ``parent.sub``."""
        queue = self.runqy_queue
        return queue if "." in queue else f"{queue}.default"

    @property
    def digest(self) -> str:
        """Digest that is equal for two specs that ask for the same work.

        Raises:
            InvalidPayload: The payload is not a JSON object.
        """
        payload = plain_payload(self.payload, self.runqy_queue)
        asked = [self.runqy_conn_id, self.full_queue, self.sink.uri, payload]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def attempt(self, context: Context, deadline: float) -> Attempt:
        """Return the attempt of a task instance that asks for this, without a job yet.

        Args:
            context: The task instance's.
            deadline: Until when the result is waited for, in seconds since 1970.
        """
        ti = context["ti"]
        index = -1 if ti.map_index is None else ti.map_index
        delivery_id = delivery_id_of(
            ti.dag_id, ti.run_id, ti.task_id, index, ti.try_number, str(ti.id)
        )
        return Attempt(
            JobRef(delivery_id, self.sink.uri, runqy_queue=self.full_queue),
            digest=self.digest,
            max_tries=ti.max_tries or 0,
            expires=deadline + LATE_DELIVERY,
            retries=ti.task.retries or 0,
        )


def delivery_id_of(  # noqa: PLR0917 - all six are one attempt, and none has a default
    dag_id: str, run_id: str, task_id: str, map_index: int, attempt: int, ti_id: str
) -> str:
    """Return the delivery id of one attempt of one task instance.

    ``ti_id`` is Airflow's own id of that attempt. The other five may be repeated: in a
    run that was deleted and created again, or in another Airflow that shares a bucket.
    """
    # JSON, so that no two different sixes give the same text.
    name = json.dumps([dag_id, run_id, task_id, map_index, attempt, ti_id])
    return str(uuid.uuid5(NAMESPACE, name))
