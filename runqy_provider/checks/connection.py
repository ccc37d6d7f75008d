# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Check a whole runqy connection: server, keys, queues, inbox, callback URL, sink."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import ResponseError

from runqy_provider.airflow_compat import (
    AirflowNotFoundException,
    get_connection,
    may_ask_database,
)
from runqy_provider.checks import FAILED, OK, WARNING, CheckResult, Status
from runqy_provider.checks.callback import check_callback
from runqy_provider.client import api
from runqy_provider.client.queues import known_queues, served_queues
from runqy_provider.connections import needs_inbox
from runqy_provider.errors import RunqyError, SinkError
from runqy_provider.redis_client import opened
from runqy_provider.settings import settings_of
from runqy_provider.sinks.inbox import InboxBackend
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airflow.sdk import Connection

    from runqy_provider.connections import RunqyConnection
    from runqy_provider.redis_connection import RedisConnection
    from runqy_provider.settings import Settings

T = TypeVar("T")

#: Seconds that one request of a check may take.
TIMEOUT = 5.0

#: The policy of a full Redis that refuses to write, and deletes nothing.
NO_EVICTION = "noeviction"


def check_connection(conn_id: str, *, is_copy: bool = False) -> list[CheckResult]:
    """Check all that a task needs of a runqy connection; takes some seconds.

    Args:
        conn_id: The runqy connection.
        is_copy: Whether it may be a copy with a temporary id, which neither the
            receiver nor the user knows. Airflow's Test button makes one.

    Returns:
        What each check found. A field that cannot be read ends the checks of fields.
    """
    try:
        connection = get_connection(conn_id)
    except AirflowNotFoundException as error:
        text = str(error).rstrip(".")
        message = f"{text}. {_how_to_find_it()}"
        return [CheckResult("Connection", FAILED, message)]
    is_known = not is_copy
    if is_copy and may_ask_database():
        from runqy_provider.checks.airflow_database import (  # noqa: PLC0415 - only there
            stored_conn_id,
        )

        stored = stored_conn_id(connection)
        is_known = stored is not None
        connection.conn_id = stored or conn_id
    results = list(_without_repetition(_check(connection)))
    return results if is_known else [_without_id(each, conn_id) for each in results]


def _how_to_find_it() -> str:
    """Return what to do if a connection is not found in this process."""
    if may_ask_database():
        from runqy_provider.checks.airflow_database import (  # noqa: PLC0415 - same
            database_error,
        )

        error = database_error()
        if error is not None:
            return (
                f"Airflow's database cannot be read here ({error}), so only this "
                "machine's environment and secrets backend were searched. On a worker "
                "without the database (Edge, Kubernetes), check the connection in a "
                "task: RunqyHook(CONN_ID).test_connection()."
            )
    return "Check its id."


def _check(connection: Connection) -> Iterator[CheckResult]:
    try:
        settings = settings_of(connection)
    except RunqyError as error:
        yield CheckResult("Connection", FAILED, str(error))
    else:
        yield from check_server(settings)
        yield _weigh(settings, check_inbox(settings))
        yield _weigh(settings, check_callback(settings))
        yield check_sink(settings)
    if may_ask_database():
        from runqy_provider.checks.airflow_database import (  # noqa: PLC0415 - same
            check_triggerer,
        )

        yield from check_triggerer()


def check_server(settings: Settings) -> Iterator[CheckResult]:
    """Check server, keys and queues; only the server if it is not reached."""
    connection = settings.connection
    reached = _result("Server", _reach, connection)
    yield reached
    if reached.status == FAILED:
        return
    yield _result("API key", _api_key, connection)
    yield _result("Queues", _queues, settings)


def check_inbox(settings: Settings) -> CheckResult:
    """Write to the inbox and read it; warn if Redis may delete unread deliveries."""
    return _result("Inbox", _inbox, settings)


def _result(
    subject: str, look: Callable[[T], tuple[Status, str]], of: T
) -> CheckResult:
    """Return what a check says: its status and its message, or its error."""
    try:
        status, message = look(of)
    except RunqyError as error:
        status, message = FAILED, str(error)
    return CheckResult(subject, status, message)


def _reach(connection: RunqyConnection) -> tuple[Status, str]:
    url = connection.server_url
    if api.ask(connection, api.health(), TIMEOUT):
        return OK, f"runqy at {url} and its Redis answer."
    return FAILED, (
        f"{url} answers, but is not healthy: its own Redis is unavailable, or this is "
        "not a runqy server. Check the server URL, and the log of the runqy server."
    )


def _api_key(connection: RunqyConnection) -> tuple[Status, str]:
    api.ask(connection, api.check_key(), TIMEOUT)
    return OK, "Accepted, and may enqueue jobs."


def _queues(settings: Settings) -> tuple[Status, str]:
    known = known_queues(settings.connection, settings.runqy_redis, TIMEOUT)
    served = served_queues(settings.connection, settings.runqy_redis, TIMEOUT)
    if known is None or served is None:
        return WARNING, (
            "Not known: enter an admin key or runqy's own Redis. Without one of them, "
            "you are not told that a queue has no worker, and the job of a killed task "
            "cannot be deleted."
        )
    names, idle = ", ".join(sorted(served)), sorted(known - served)
    if idle:
        return WARNING, (
            f"No live worker serves {', '.join(idle)}: start a runqy worker, or their "
            f"jobs wait. Served: {names or 'none'}."
        )
    return OK, f"Live workers serve {names}."


def _inbox(settings: Settings) -> tuple[Status, str]:
    backend = InboxBackend(settings)
    backend.check()
    policy = _eviction_of(backend.redis, backend.namespace)
    done = f"Redis at {backend.redis.address} was written and read"
    if policy is None:
        return OK, f"{done}."
    return WARNING, (
        f"{done}, but deletes unread deliveries when its memory is full "
        f"(maxmemory-policy {policy}): their tasks fail. Set maxmemory-policy to "
        "noeviction."
    )


def check_sink(settings: Settings) -> CheckResult:
    """Check the connection's sink as a task does before it enqueues a job."""
    uri, subject = settings.connection.sink, "Default sink"
    try:
        sink_from_uri(uri).bind(settings).check()
    except (RunqyError, AirflowNotFoundException) as error:
        return CheckResult(subject, FAILED, f"{uri!r} cannot be used: {error}")
    return CheckResult(subject, OK, f"{uri!r} can be used.")


def _weigh(settings: Settings, found: CheckResult) -> CheckResult:
    """Return a failed check as a warning if the default sink does not need it."""
    if found.status != FAILED or needs_inbox(settings.connection.sink):
        return found
    message = f"{found.message} (Needed only for the sinks webhook and amqp.)"
    return dataclasses.replace(found, status=WARNING, message=message)


def _without_repetition(results: Iterable[CheckResult]) -> Iterator[CheckResult]:
    """Refer to an earlier result if a message repeats it."""
    earlier: list[CheckResult] = []
    for result in results:
        message = result.message
        # The longest first: it may contain the others.
        for one in sorted(earlier, key=lambda each: -len(each.message)):
            if one.status != OK:
                message = message.replace(one.message, f"see {one.subject}.")
        earlier.append(result)
        yield dataclasses.replace(result, message=message)


def _without_id(result: CheckResult, conn_id: str) -> CheckResult:
    """Return a result that does not name a temporary id."""
    name = re.escape(repr(conn_id))
    text = re.sub(rf"\bConnection {name}", "This connection", result.message)
    text = re.sub(rf"\b(?:the )?connection {name}", "this connection", text)
    return dataclasses.replace(result, message=text.replace(conn_id, "CONN_ID"))


def _eviction_of(connection: RedisConnection, namespace: str) -> str | None:
    """Return the policy by which Redis deletes unread deliveries if it is full.

    Returns:
        None if it deletes none (``noeviction``, or no memory limit), or if the user may
        not ask.

    Raises:
        SinkUnavailable: Redis is unavailable.
    """
    tagged = connection.for_namespace(namespace)
    try:
        with opened(tagged, "read the settings of its memory") as redis:
            memory: Mapping[str, Any] = redis.info("memory")
    except SinkError as error:
        if isinstance(error.__cause__, ResponseError):
            return None
        raise
    policy = str(memory.get("maxmemory_policy", NO_EVICTION))
    # All keys of the inbox have a TTL, so volatile-* policies delete them, too.
    return policy if policy != NO_EVICTION and memory.get("maxmemory") else None
