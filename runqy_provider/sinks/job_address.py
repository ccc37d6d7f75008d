# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The address of a result that runqy itself stores."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

from runqy_provider.errors import Misconfigured

SCHEME = "redis_storage://"


@dataclass(frozen=True)
class JobAddress:
    """``redis_storage://conn_id/queue/job_id/delivery_id``."""

    conn_id: str
    runqy_queue: str
    job_id: str
    delivery_id: str

    @property
    def job(self) -> tuple[str, str]:
        """The queue and the id of the job."""
        return self.runqy_queue, self.job_id

    def __str__(self) -> str:
        parts = (self.conn_id, self.runqy_queue, self.job_id, self.delivery_id)
        return SCHEME + "/".join(quote(part, safe="") for part in parts)

    @classmethod
    def parse(cls, text: str) -> JobAddress:
        """Read the address.

        Raises:
            Misconfigured: It is none.
        """
        parts = [unquote(part) for part in text.removeprefix(SCHEME).split("/")]
        if not text.startswith(SCHEME) or len(parts) != len(cls.__dataclass_fields__):
            raise Misconfigured(f"{text!r} is no address of a stored result.")
        return cls(*parts)
