# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs and workers as runqy's API describes them, options, and payloads as plain JSON.

Into a payload, Airflow may put anything: XComs of mapped tasks come as lazy sequences,
native templates give ``DateTime`` objects, and a template that ends in ``tojson`` gives
a text.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from runqy_delivery.wire import RESERVED_FIELDS
from runqy_provider.errors import InvalidPayload, Misconfigured

#: States of a job, as runqy names them.
PENDING, ACTIVE, RETRY = "pending", "active", "retry"
COMPLETED, ARCHIVED, SCHEDULED = "completed", "archived", "scheduled"

#: Most levels of nesting: far more than any payload has, and less than Python's limit.
MAX_DEPTH = 200

#: Types without one fixed order or form: a retry must get the same payload.
_UNORDERED_OR_BYTES = (set, frozenset, bytes, bytearray, memoryview)


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
        result: What the handler returned, if the queue stores results.
        is_garbled: Whether the server changed the result: its API reads ``null``,
            ``true`` or a number of four digits as base64.
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
        """Read ``info`` of an enqueue, or ``Info`` of a status; their fields differ."""
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


@dataclass(frozen=True)
class JobOptions:
    """Options of a job; only the first one can be set over HTTP.

    Attributes:
        timeout: Timeout in seconds that runqy stores with the job. It does not enforce
            it.
        max_retry: How often a job that failed is run again; runqy's default is 3.
        active_timeout: Seconds for which the job may run: then runqy counts it as
            failed, and may run it again, while its handler goes on.
        ttl_completed: Seconds for which runqy keeps the result, if the queue stores
            results; runqy's default is a day.
    """

    timeout: float | None = None
    max_retry: int | None = None
    active_timeout: float | None = None
    ttl_completed: float | None = None

    def __post_init__(self) -> None:
        """Check that the options have valid values.

        Raises:
            Misconfigured: A number is negative, or not a whole number of retries.
        """
        for name, value in vars(self).items():
            least = 0 if name == "max_retry" else 1
            if value is not None and (value < least or value != value):  # noqa: PLR0124 - not a number
                raise Misconfigured(f"{name} must be {least} or more, not {value!r}.")
        if self.max_retry is not None and self.max_retry != int(self.max_retry):
            raise Misconfigured(f"max_retry must be whole, not {self.max_retry!r}.")

    def fields(self) -> dict[str, int]:
        """Return the fields that the worker reads in the job's hash."""
        named = {
            "active_timeout": self.active_timeout,
            "ttl_completed": self.ttl_completed,
        }
        return {name: int(value) for name, value in named.items() if value is not None}

    def check_http(self, conn_id: str, job_id: str | None) -> None:
        """Check that a job can be asked for over HTTP with these options.

        Args:
            conn_id: The runqy connection.
            job_id: The id that the job is to have; None if runqy may choose it.

        Raises:
            Misconfigured: One of them can only be set in runqy's Redis.
        """
        wanted = {
            "job_id": job_id,
            "max_retry": self.max_retry,
            "active_timeout": self.active_timeout,
            "ttl_completed": self.ttl_completed,
        }
        given = [name for name, value in wanted.items() if value is not None]
        if given:
            raise Misconfigured(
                f"{given[0]} cannot be set over HTTP: runqy's API has no such field. "
                f"Set the transport of connection {conn_id!r} to 'redis'."
            )


def plain_payload(payload: Any, runqy_queue: str) -> dict[str, Any]:
    """Return a payload as a JSON object.

    Args:
        payload: A mapping, or a text that is a JSON object.
        runqy_queue: The queue, for messages.

    Raises:
        InvalidPayload: It is neither, holds something that is not JSON (the message
            names the path to it), or a field that the delivery request needs.
    """
    what = f"The payload for queue {runqy_queue!r}"
    if isinstance(payload, str):
        payload = _parsed(payload, what)
    if not isinstance(payload, Mapping):
        raise InvalidPayload(
            f"{what} is a {type(payload).__name__}. It must be an object (a dict, or "
            "a text with a JSON object), because the request to deliver the result is "
            "added to its fields. Put the value into one: payload={'input': ...}."
        )
    taken = [name for name in RESERVED_FIELDS if name in payload]
    if taken:
        raise InvalidPayload(
            f"{what} has the field {taken[0]!r}, in which the request to deliver the "
            "result is sent. Rename it."
        )
    plain: dict[str, Any] = _plain(payload, "payload", what, 0)
    return plain


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidPayload(
            f"{what} is a text that is not JSON ({error}). In a template, end the "
            'expression with the filter tojson: payload="{{ dag_run.conf | tojson }}".'
        ) from error


def _plain(value: Any, path: str, what: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidPayload(
            f"{what} is nested more than {MAX_DEPTH} levels deep, or contains itself."
        )
    if isinstance(value, str | int | type(None)):
        return value
    if isinstance(value, Mapping):
        return {
            _name(key, path, what): _plain(each, f"{path}[{key!r}]", what, depth + 1)
            for key, each in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        # Also XComs of mapped tasks: zipped, concatenated, or with a function applied.
        return [
            _plain(each, f"{path}[{n}]", what, depth + 1)
            for n, each in enumerate(value)
        ]
    return _encoded(value, path, what)


def _name(key: Any, path: str, what: str) -> str:
    if isinstance(key, str):
        return key
    raise InvalidPayload(
        f"{what} has the name {key!r} at {path}: names in a JSON object are texts."
    )


def _encoded(value: Any, path: str, what: str) -> Any:
    """Return times, UUIDs, decimals and the like as Airflow's API writes them."""
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise InvalidPayload(
            f"{what} holds {value} at {path}, which JSON cannot write. Use null "
            "(None) or a text for it."
        )
    if not isinstance(value, _UNORDERED_OR_BYTES):
        try:
            return to_jsonable_python(value)
        except PydanticSerializationError:
            pass
    raise InvalidPayload(
        f"{what} holds a {type(value).__name__} at {path}, which is not JSON. A "
        "payload holds texts, numbers, booleans, null, lists and objects."
    )
