# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs and workers as runqy's API describes them."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: States of a job, as runqy names them.
PENDING, ACTIVE, RETRY = "pending", "active", "retry"
COMPLETED, ARCHIVED, SCHEDULED = "completed", "archived", "scheduled"


@dataclass(frozen=True)
class Job:
    """A job as the server describes it.

    Attributes:
        job_id: runqy's id.
        runqy_queue: Full name of the queue, with its sub-queue.
        state: ``pending``, ``active``, ``retry``, ``completed`` or ``archived``.
        payload: What it was enqueued with; it contains callback URLs, so it is not
            shown.
        retried: How often it was run again.
        max_retry: How often it may be.
        result: What the handler returned, where the queue stores results.
        is_garbled: Whether the server changed the result: its API takes a bare
            ``null``, ``true`` or number of four digits for base64.
    """

    job_id: str
    runqy_queue: str
    state: str
    payload: Any = field(default=None, repr=False)
    retried: int = 0
    max_retry: int = 0
    result: Any = None
    is_garbled: bool = False

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> Job:
        """Read ``info`` of an enqueue, or ``Info`` of a status; they differ a bit."""
        result, is_garbled = _result(info.get("Result"))
        return cls(
            job_id=info["id"],
            runqy_queue=info["queue"],
            state=info["state"],
            payload=_payload(info.get("payload")),
            retried=info.get("retried", 0),
            max_retry=info.get("max_retry", 0),
            result=result,
            is_garbled=is_garbled,
        )


def _payload(text: object) -> Any:
    """Read a payload: JSON text in a status, base64 of it after an enqueue."""
    if not isinstance(text, str):
        return None
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return None


def _result(text: object) -> tuple[Any, bool]:
    """Read a result, and return whether it was changed: unchanged, it is JSON."""
    if not isinstance(text, str) or not text:
        return None, False
    try:
        return json.loads(text), False
    except ValueError:
        return text, True


@dataclass(frozen=True)
class Worker:
    """A runqy worker that sent a heartbeat recently.

    Attributes:
        worker_id: Its name.
        queues: The queues it serves, as the server writes them.
        status: Its status, as the server writes it.
        last_beat: Its last heartbeat, in seconds since 1970.
        is_stale: Whether that is too long ago.
    """

    worker_id: str
    queues: str
    status: str
    last_beat: int
    is_stale: bool

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Worker:
        """Read one item of ``GET /workers``."""
        return cls(
            worker_id=fields["worker_id"],
            queues=str(fields.get("queues", "")),
            status=str(fields.get("status", "")),
            last_beat=int(fields.get("last_beat", 0)),
            is_stale=bool(fields.get("is_stale", False)),
        )
