# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""runqy's HTTP API: its requests and answers without I/O, and how they are sent.

A request says how it is sent and how its response is read. ``send`` sends one once,
with ``requests``, and says of each error whether the request may be repeated. Code with
an event loop calls it in a thread.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

import requests
from requests.exceptions import ConnectTimeout, RequestException, SSLError
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from runqy_delivery.proxy import proxy_for
from runqy_provider.client.models import Job, Worker
from runqy_provider.errors import (
    InvalidPayload,
    JobVanished,
    Misconfigured,
    NotAllowed,
    PayloadTooLarge,
    QueueNotFound,
    Rejected,
    RunqyError,
    ServerUnavailable,
)
from runqy_provider.sanitize import one_line

if TYPE_CHECKING:
    from runqy_provider.connections import RunqyConnection

#: The largest request body that the server accepts, in bytes.
MAX_BODY = 50 * 1024 * 1024

OK, BAD_REQUEST, UNAUTHORIZED, FORBIDDEN = 200, 400, 401, 403
NOT_FOUND, TOO_LARGE, SERVER_ERROR = 404, 413, 500

#: Texts of two 500 responses that say that a job is gone: the job has ended, or runqy's
#: Redis was emptied.
NO_TASK, NO_QUEUE = "asynq: task not found", "asynq: queue not found"

#: Texts of a 400 response which is not the caller's error: the server's Redis is
#: unavailable.
REDIS_UNAVAILABLE = (
    "dial tcp",
    "connection refused",
    "i/o timeout",
    "redis eval error",
)

#: Text by which the server refuses to delete a job that runs.
ACTIVE = "in active state"

#: Seconds that one request may take.
REQUEST_TIMEOUT = 30.0

#: Statuses of a server that is busy: nothing was enqueued.
NOT_NOW = frozenset({429, 503})

#: Statuses of a proxy: it is not known whether the server accepted the request.
GATEWAY_ERRORS = frozenset({502, 504})

T = TypeVar("T")


class RetryableServerError(ServerUnavailable):
    """The server is unavailable, and the request may be repeated."""


class AnswerLost(ServerUnavailable):
    """A request was sent, and it is not known whether the server accepted it."""


@dataclass(frozen=True)
class ApiResponse:
    """An HTTP response: its status, and its unparsed body."""

    status: int
    body: bytes

    def json(self) -> Mapping[str, Any]:
        """Return the body as a JSON object; an empty one if it is not an object."""
        try:
            data = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return data if isinstance(data, Mapping) else {}

    def part(self, name: str, what: str, read: Callable[[Any], T]) -> T:
        """Return a field of the body, typed.

        Args:
            name: Name of the field.
            what: What the request does, for the message.
            read: Converts the field.

        Raises:
            ServerUnavailable: It is missing: the response is not from runqy.
        """
        try:
            return read(self.json()[name])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ServerUnavailable(
                f"The response to {what} is not from runqy: {self.status}, without "
                f"{name!r} in {one_line(self.message(), 200)!r}. Is it from a proxy, "
                "or a web page? Check the connection's server URL."
            ) from error

    @property
    def is_from_runqy(self) -> bool:
        """Whether it is an error in runqy's format."""
        return isinstance(self.json().get("errors"), list)

    def message(self) -> str:
        """Return the error message of the server."""
        errors = self.json().get("errors")
        if isinstance(errors, list):
            return "; ".join(str(error) for error in errors)
        return self.body[:300].decode("utf-8", "replace").strip()


@dataclass(frozen=True)
class ApiRequest(Generic[T]):
    """One request to the server.

    Attributes:
        what: What the request does, for messages.
        method: HTTP method.
        path: Path below the server's URL.
        read: Turns the response into the result, or raises.
        body: JSON body, if any.
        needs: The role that its key must have; None if no key is needed.
        is_repeatable: Whether it may be sent twice.
    """

    what: str
    method: str
    path: str
    read: Callable[[ApiResponse], T]
    body: bytes | None = None
    needs: str | None = None
    is_repeatable: bool = True


def enqueue(
    runqy_queue: str, payload: Mapping[str, Any], timeout: float | None
) -> ApiRequest[Job]:
    """Return the request that enqueues one job.

    Raises:
        InvalidPayload: The payload is not JSON.
        PayloadTooLarge: It is larger than the server accepts.
    """
    body = _body_of(runqy_queue, {"data": payload}, timeout)

    def read(response: ApiResponse) -> Job:
        if response.status == OK:
            return response.part("info", f"enqueue to {runqy_queue!r}", Job.from_info)
        raise _rejection(response, runqy_queue)

    return ApiRequest(
        f"enqueue to {runqy_queue!r}",
        "POST",
        "/queue/add",
        read,
        body,
        needs="client",
        is_repeatable=False,
    )


def enqueue_batch(
    runqy_queue: str, payloads: Sequence[Mapping[str, Any]], timeout: float | None
) -> ApiRequest[list[str]]:
    """Return the request that enqueues many jobs; its result is their ids.

    Each element of ``jobs`` is a payload itself: the server does not unwrap a field
    ``data``, though its documentation says so.

    Raises:
        InvalidPayload: A payload is not JSON.
        PayloadTooLarge: Together they are larger than the server accepts.
    """
    body = _body_of(runqy_queue, {"jobs": payloads}, timeout)
    what = f"enqueue {len(payloads)} jobs to {runqy_queue!r}"

    def read(response: ApiResponse) -> list[str]:
        if response.status != OK:
            raise _rejection(response, runqy_queue)
        ids = response.part("task_ids", what, _texts)
        if not ids:
            raise ServerUnavailable(f"runqy could not {what}: {response.message()}")
        return ids

    return ApiRequest(
        what,
        "POST",
        "/queue/add-batch",
        read,
        body,
        needs="client",
        is_repeatable=False,
    )


def _texts(items: Any) -> list[str]:
    return [str(item) for item in items or ()]


def _body_of(runqy_queue: str, what: dict[str, Any], timeout: float | None) -> bytes:
    request: dict[str, Any] = {"queue": runqy_queue, **what}
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
            f"server accepts at most {MAX_BODY:,}. Put large inputs into an object "
            "store and their URI into the payload."
        )
    return body


def _rejection(response: ApiResponse, runqy_queue: str) -> RunqyError:
    message = response.message()
    if response.status == NOT_FOUND and response.is_from_runqy:
        hint = "Check its name."
        if "." not in runqy_queue:
            hint = (
                f"{runqy_queue!r} means {runqy_queue + '.default'!r}: name the "
                "sub-queue that you want."
            )
        return QueueNotFound(f"runqy has no queue {runqy_queue!r} ({message}). {hint}")
    if response.status == BAD_REQUEST and any(
        text in message.lower() for text in REDIS_UNAVAILABLE
    ):
        return ServerUnavailable(
            f"runqy could not enqueue to {runqy_queue!r}, as its own Redis is "
            f"unavailable: {message}"
        )
    if response.status == BAD_REQUEST:
        return InvalidPayload(
            f"runqy refuses the payload for queue {runqy_queue!r}: {message}. The "
            "queue's input schema says what is valid."
        )
    if response.status == TOO_LARGE:
        return PayloadTooLarge(f"runqy refuses the payload as too large: {message}")
    return _refused(response, f"enqueue to {runqy_queue!r}", "client")


def get_job(job_id: str) -> ApiRequest[Job]:
    """Return the request for the state of a job."""

    def read(response: ApiResponse) -> Job:
        if response.status == OK:
            return response.part("Info", f"look at job {job_id}", Job.from_info)
        _raise_if_gone(response, job_id)
        raise _refused(response, f"look at job {job_id}", None)

    return ApiRequest(
        f"look at job {job_id}", "GET", f"/queue/{quote(job_id, safe='')}", read
    )


def delete_job(runqy_queue: str, job_id: str) -> ApiRequest[bool]:
    """Return the request that deletes a job; its result is False if the job runs."""

    def read(response: ApiResponse) -> bool:
        if response.status == OK:
            return True
        _raise_if_gone(response, job_id)
        if ACTIVE in response.message():
            return False
        raise _refused(response, f"delete job {job_id}", "admin")

    path = f"/api/queues/{quote(runqy_queue, safe='')}/tasks/{quote(job_id, safe='')}"
    return ApiRequest(f"delete job {job_id}", "DELETE", path, read, needs="admin")


def health() -> ApiRequest[bool]:
    """Return the request that checks the server and its Redis."""

    def read(response: ApiResponse) -> bool:
        return response.status == OK

    return ApiRequest("ask for its health", "GET", "/healthz", read)


def list_workers() -> ApiRequest[list[Worker]]:
    """Return the request for the live workers."""

    def read(response: ApiResponse) -> list[Worker]:
        if response.status == OK:
            return response.part("workers", "list workers", _workers)
        raise _refused(response, "list workers", "admin")

    return ApiRequest("list workers", "GET", "/workers", read, needs="admin")


def _workers(items: Any) -> list[Worker]:
    return [Worker.from_fields(item) for item in items]


def list_queues() -> ApiRequest[set[str]]:
    """Return the request for the names of the configured queues."""

    def read(response: ApiResponse) -> set[str]:
        if response.status == OK:
            return response.part("queues", "list queues", _names)
        raise _refused(response, "list queues", "admin")

    return ApiRequest("list queues", "GET", "/workers/queues", read, needs="admin")


def _names(items: Any) -> set[str]:
    return {str(item["name"]) for item in items}


def check_key() -> ApiRequest[None]:
    """Return a request that only a key with the client role is allowed to make.

    It enqueues nothing, as it does not name a queue.
    """

    def read(response: ApiResponse) -> None:
        if response.status != BAD_REQUEST:
            raise _refused(response, "enqueue jobs", "client")

    return ApiRequest("enqueue jobs", "POST", "/queue/add", read, b"{}", needs="client")


def _raise_if_gone(response: ApiResponse, job_id: str) -> None:
    message = response.message()
    # A 404 of a proxy says nothing about the job.
    if response.status == NOT_FOUND and response.is_from_runqy:
        raise JobVanished(
            f"runqy does not know job {job_id} ({message}).", has_trace=False
        )
    if response.status == SERVER_ERROR and message == NO_QUEUE:
        raise JobVanished(
            f"runqy has forgotten job {job_id} ({message}): its Redis was emptied, or "
            "replaced.",
            has_trace=False,
        )
    if response.status == SERVER_ERROR and message == NO_TASK:
        raise JobVanished(
            f"runqy has forgotten job {job_id} ({message}): it finished, failed for "
            "good or was deleted, and by default runqy keeps nothing of such jobs."
        )


def _refused(response: ApiResponse, what: str, role: str | None) -> RunqyError:
    message = response.message()
    field = "admin key" if role == "admin" else "API key (password)"
    if response.status == UNAUTHORIZED:
        return NotAllowed(
            f"runqy does not know the key used to {what} ({message}). Enter a valid "
            f"{field} in the connection."
        )
    if response.status == FORBIDDEN:
        return NotAllowed(
            f"The key used to {what} has the wrong role ({message}). Enter a key with "
            f"the role {role or 'client'} as the {field} of the connection."
        )
    is_from_proxy = response.status == NOT_FOUND and not response.is_from_runqy
    if response.status >= SERVER_ERROR or is_from_proxy:
        return ServerUnavailable(f"runqy could not {what}: {response.status} {message}")
    return Rejected(f"runqy refused to {what}: {response.status} {message}")


def open_session(connection: RunqyConnection) -> requests.Session:
    """Return a session for blocking requests to the server of a connection.

    Raises:
        Misconfigured: The environment names a proxy that is not a URL.
    """
    return open_session_for(connection.server_url)


def open_session_for(url: str) -> requests.Session:
    """Return a session for blocking requests to one address.

    Raises:
        Misconfigured: The environment names a proxy that is not a URL.
    """
    session = requests.Session()
    # Else a .netrc would replace our key; and requests does not support all of
    # NO_PROXY.
    session.trust_env = False
    found = _proxy_for(url)
    if found is not None:
        session.proxies = {urlsplit(url).scheme: found}
    bundles = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    session.verify = next((os.environ[n] for n in bundles if os.environ.get(n)), True)
    return session


def _proxy_for(url: str) -> str | None:
    """Return the proxy for a URL; None if it is reached directly.

    Raises:
        Misconfigured: The environment names a proxy that is not a URL.
    """
    try:
        return proxy_for(url)
    except ValueError as error:
        raise Misconfigured(str(error)) from error


def send(
    session: requests.Session,
    request: ApiRequest[T],
    connection: RunqyConnection,
    *,
    timeout: float | None = None,
) -> T:
    """Send a request once.

    Args:
        session: The session; see ``open_session``.
        request: The request.
        connection: The connection, for its keys and for messages.
        timeout: Seconds that it may take; by default REQUEST_TIMEOUT.

    Raises:
        RetryableServerError: The server is unavailable; the request may be repeated.
        RunqyError: The error that the response stands for.
    """
    try:
        response = session.request(
            request.method,
            f"{connection.server_url}{request.path}",
            data=request.body,
            headers=_headers(request, connection),
            timeout=timeout or REQUEST_TIMEOUT,
            allow_redirects=False,
        )
    except RequestException as error:
        raise _transport_error(request, connection, error) from None
    return _result(request, connection, response.status_code, response.content)


def ask(
    connection: RunqyConnection,
    request: ApiRequest[T],
    timeout: float | None = None,
) -> T:
    """Send a single request, in a session of its own; see ``send``."""
    with open_session(connection) as session:
        return send(session, request, connection, timeout=timeout)


def _headers(request: ApiRequest[Any], connection: RunqyConnection) -> dict[str, str]:
    """Return the headers of a request, with the key that it needs.

    Raises:
        NotAllowed: The connection has no such key.
    """
    fields = {"User-Agent": "airflow-provider-runqy"}
    if request.body is not None:
        fields["Content-Type"] = "application/json"
    if request.needs is None:
        return fields
    # Some deployments have one key, with the admin role: it may do everything.
    key = connection.admin_key or connection.api_key
    name = "Admin key"
    if request.needs == "client":
        key, name = connection.api_key, "API key (password)"
    if key is None:
        raise NotAllowed(
            f"Cannot {request.what}: connection {connection.conn_id!r} has no {name}."
        )
    fields["Authorization"] = f"Bearer {key}"
    return fields


def _result(
    request: ApiRequest[T], connection: RunqyConnection, status: int, body: bytes
) -> T:
    """Return the result of a response, or raise its error."""
    is_unavailable = status in NOT_NOW or (
        status in GATEWAY_ERRORS and request.is_repeatable
    )
    if is_unavailable and request.path != "/healthz":
        raise RetryableServerError(
            f"runqy at {connection.server_url} could not {request.what}: it answered "
            f"{status}."
        )
    try:
        return request.read(ApiResponse(status, body))
    except ServerUnavailable as error:
        if status >= SERVER_ERROR and not request.is_repeatable:
            raise AnswerLost(str(error)) from error
        raise


def _transport_error(
    request: ApiRequest[Any],
    connection: RunqyConnection,
    error: RequestException,
) -> ServerUnavailable:
    """Return the error of a request without a response; retryable if that is safe."""
    server = f"runqy at {connection.server_url} (connection {connection.conn_id!r})"
    reason = _reason(error)
    if _was_never_sent(error) or request.is_repeatable:
        return RetryableServerError(
            f"{server} cannot be reached to {request.what}: {reason}. Check that the "
            "server runs and that this machine reaches it."
        )
    return AnswerLost(
        f"{server} closed the connection while it was asked to {request.what}: "
        f"{reason}. The job may have been enqueued; the request was not repeated, so "
        "that the job does not run twice."
    )


def _reason(error: BaseException) -> str:
    """Return type and text of the innermost error, which is the most specific."""
    while True:
        wrapped = getattr(error.args[0], "reason", None) if error.args else None
        inner = wrapped or error.__cause__ or error.__context__
        if not isinstance(inner, BaseException):
            return f"{type(error).__name__}: {error}".rstrip(":. ")
        error = inner


def _was_never_sent(error: RequestException) -> bool:
    # requests raises the same error for a failed and for an interrupted connection.
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, (ConnectTimeout, SSLError)) or isinstance(
        reason, (NewConnectionError, ConnectTimeoutError)
    )
