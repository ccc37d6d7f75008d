# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a wait knows of the job whose result it waits for."""

from __future__ import annotations

from dataclasses import dataclass

from runqy_provider.errors import Misconfigured


@dataclass(frozen=True)
class Ticket:
    """The ids of one job and its delivery.

    Attributes:
        delivery_id: Ours.
        job_id: runqy's, where known.
        runqy_queue: Full name of the job's queue, where known.
    """

    delivery_id: str
    job_id: str | None = None
    runqy_queue: str | None = None

    def job(self, sink: str) -> tuple[str, str]:
        """Return the queue and the job's id, for a sink that cannot do without.

        Args:
            sink: The sink's URI, for the message.

        Raises:
            Misconfigured: One of them is not known.
        """
        if self.runqy_queue is None or self.job_id is None:
            raise Misconfigured(
                f"The sink {sink!r} needs the job's id and queue to look for its "
                "result: give job_id and runqy_queue to the sensor."
            )
        return self.runqy_queue, self.job_id
