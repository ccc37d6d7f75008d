# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""runqy's HTTP API as calls and answers, with no input or output of its own.

A call says what to send; its ``read`` turns an answer into a typed result or an error.
The recorded behaviour of the real server stands in ``tests/conformance/transcripts``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from runqy_provider.client.models import Job, Worker
from runqy_provider.errors import (
    InvalidPayload,
    JobVanished,
    NotAllowed,
    PayloadTooLarge,
    QueueNotFound,
    Rejected,
    RunqyError,
    ServerUnavailable,
)
from runqy_provider.sanitize import one_line

#: The largest request body that the server takes, in bytes.
MAX_BODY = 50 * 1024 * 1024

OK, BAD_REQUEST, UNAUTHORIZED, FORBIDDEN = 200, 400, 401, 403
NOT_FOUND, TOO_LARGE, SERVER_ERROR = 404, 413, 500

#: Text of the two 500s by which the server says that a job is gone.
GONE = ("asynq: task not found", "asynq: queue not found")

#: What a 400 says that is no fault of the caller: the server's own Redis is away.
REDIS_AWAY = ("dial tcp", "connection refused", "i/o timeout", "redis eval error")

#: Text by which the server refuses to delete a job that runs.
ACTIVE = "in active state"

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: its status, and its body as it came."""

    status: int
    body: bytes

    def json(self) -> Mapping[str, Any]:
        """Return the body as a JSON object; an empty one where it is none."""
        try:
            data = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return data if isinstance(data, Mapping) else {}

    def part(self, name: str, what: str, read: Callable[[Any], T]) -> T:
        """Return a part of the body, typed.

        Args:
            name: The part.
            what: What is being done, for the message.
            read: Makes of it what is wanted.

        Raises:
            ServerUnavailable: It is not there: whoever answers is not runqy.
        """
        try:
            return read(self.json()[name])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ServerUnavailable(
                f"Whoever answered to {what} is not runqy: {self.status}, and no "
                f"{name!r} in {one_line(self.words(), 200)!r}. A proxy, or a page for "
                "people? Check the connection's server URL."
            ) from error

    @property
    def is_runqys(self) -> bool:
        """True for an error in runqy's own form."""
        return isinstance(self.json().get("errors"), list)

    def words(self) -> str:
        """Return the server's own words."""
        errors = self.json().get("errors")
        if isinstance(errors, list):
            return "; ".join(str(error) for error in errors)
        return self.body[:300].decode("utf-8", "replace").strip()


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request to the server.

    Attributes:
        what: What is being done, for messages.
        method: HTTP method.
        path: Path below the server's URL.
        read: Turns the answer into the result, or raises.
        body: JSON body, if any.
        needs: The role that its key must have; None where no key is needed.
        is_repeatable: True where sending it twice does no harm.
    """

    what: str
    method: str
    path: str
    read: Callable[[Answer], T]
    body: bytes | None = None
    needs: str | None = None
    is_repeatable: bool = True


def enqueue(
    runqy_queue: str, payload: Mapping[str, Any], timeout: float | None
) -> Call[Job]:
    """Return the call that enqueues one job.

    Raises:
        InvalidPayload: The payload is not JSON.
        PayloadTooLarge: It is larger than the server takes.
    """
    request: dict[str, Any] = {"queue": runqy_queue, "data": payload}
    if timeout is not None:
        request["timeout"] = int(timeout)
    try:
        body = json.dumps(request, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidPayload(
            f"The payload for queue {runqy_queue!r} is not JSON: {error}. Payloads "
            "hold texts, numbers, booleans, lists and objects."
        ) from error
    if len(body) > MAX_BODY:
        raise PayloadTooLarge(
            f"The payload for queue {runqy_queue!r} has {len(body):,} bytes; the "
            f"server takes at most {MAX_BODY:,}. Put large inputs into an object "
            "store and their address into the payload."
        )

    def read(answer: Answer) -> Job:
        if answer.status == OK:
            return answer.part("info", f"enqueue to {runqy_queue!r}", Job.from_info)
        raise _rejection(answer, runqy_queue)

    return Call(
        f"enqueue to {runqy_queue!r}",
        "POST",
        "/queue/add",
        read,
        body,
        needs="client",
        is_repeatable=False,
    )


def _rejection(answer: Answer, runqy_queue: str) -> RunqyError:
    words = answer.words()
    if answer.status == NOT_FOUND and answer.is_runqys:
        hint = "Check its name against the queues that the server is configured with."
        if "." not in runqy_queue:
            hint = (
                f"{runqy_queue!r} means {runqy_queue + '.default'!r}, and there is no "
                f"such sub-queue: name one that is configured, such as "
                f"{runqy_queue + '.high'!r}."
            )
        return QueueNotFound(f"runqy has no queue {runqy_queue!r} ({words}). {hint}")
    if answer.status == BAD_REQUEST and any(
        text in words.lower() for text in REDIS_AWAY
    ):
        return ServerUnavailable(
            f"runqy could not enqueue to {runqy_queue!r}, as its own Redis is away: "
            f"{words}"
        )
    if answer.status == BAD_REQUEST:
        return InvalidPayload(
            f"runqy refuses the payload for queue {runqy_queue!r}: {words}. The "
            "queue's input schema says what it takes."
        )
    if answer.status == TOO_LARGE:
        return PayloadTooLarge(f"runqy refuses the payload as too large: {words}")
    return _refusal(answer, f"enqueue to {runqy_queue!r}", "client")


def get_job(job_id: str) -> Call[Job]:
    """Return the call that looks at a job."""

    def read(answer: Answer) -> Job:
        if answer.status == OK:
            return answer.part("Info", f"look at job {job_id}", Job.from_info)
        _raise_if_gone(answer, job_id)
        raise _refusal(answer, f"look at job {job_id}", None)

    return Call(
        f"look at job {job_id}", "GET", f"/queue/{quote(job_id, safe='')}", read
    )


def delete_job(runqy_queue: str, job_id: str) -> Call[bool]:
    """Return the call that deletes a job: True, or False where it runs already."""

    def read(answer: Answer) -> bool:
        if answer.status == OK:
            return True
        _raise_if_gone(answer, job_id)
        if ACTIVE in answer.words():
            return False
        raise _refusal(answer, f"delete job {job_id}", "admin")

    path = f"/api/queues/{quote(runqy_queue, safe='')}/tasks/{quote(job_id, safe='')}"
    return Call(f"delete job {job_id}", "DELETE", path, read, needs="admin")


def health() -> Call[bool]:
    """Return the call that asks whether the server and its Redis are well."""

    def read(answer: Answer) -> bool:
        return answer.status == OK

    return Call("ask for its health", "GET", "/healthz", read)


def list_workers() -> Call[list[Worker]]:
    """Return the call that lists the live workers."""

    def read(answer: Answer) -> list[Worker]:
        if answer.status == OK:
            return answer.part("workers", "list workers", _workers)
        raise _refusal(answer, "list workers", "admin")

    return Call("list workers", "GET", "/workers", read, needs="admin")


def _workers(items: Any) -> list[Worker]:
    return [Worker.from_fields(item) for item in items]


def check_key() -> Call[None]:
    """Return a call that only somebody with the client role gets past the door with.

    It enqueues nothing: it names no queue.
    """

    def read(answer: Answer) -> None:
        if answer.status != BAD_REQUEST:
            raise _refusal(answer, "check the API key", "client")

    return Call("check the API key", "POST", "/queue/add", read, b"{}", needs="client")


def _raise_if_gone(answer: Answer, job_id: str) -> None:
    words = answer.words()
    # A proxy's own 404 says nothing of a job.
    if answer.status == NOT_FOUND and answer.is_runqys:
        raise JobVanished(f"runqy never heard of job {job_id} ({words}).")
    if answer.status == SERVER_ERROR and words in GONE:
        raise JobVanished(
            f"runqy has forgotten job {job_id} ({words}): it finished, failed for good "
            "or was deleted, and by default runqy keeps nothing of such jobs."
        )


def _refusal(answer: Answer, what: str, role: str | None) -> RunqyError:
    words = answer.words()
    if answer.status == UNAUTHORIZED:
        return NotAllowed(
            f"runqy does not know the key used to {what} ({words}). Check the API key "
            "(password) or the admin key of the connection."
        )
    if answer.status == FORBIDDEN:
        return NotAllowed(
            f"The key used to {what} has the wrong role ({words}); it needs the role "
            f"{role or 'client'}. Check the connection's API key and admin key."
        )
    is_a_proxys = answer.status == NOT_FOUND and not answer.is_runqys
    if answer.status >= SERVER_ERROR or is_a_proxys:
        return ServerUnavailable(f"runqy could not {what}: {answer.status} {words}")
    return Rejected(f"runqy refused to {what}: {answer.status} {words}")
