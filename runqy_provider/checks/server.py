# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Check the runqy server, our keys, and the workers of its queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runqy_provider.checks.result import FAILED, OK, WARNING, CheckResult
from runqy_provider.client import api
from runqy_provider.client.queues import known_queues, served_queues
from runqy_provider.errors import RunqyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runqy_provider.connections import RunqyConnection
    from runqy_provider.context import SinkContext

#: Seconds that one request of a check may take.
TIMEOUT = 5.0


def check_server(context: SinkContext) -> Iterator[CheckResult]:
    """Check server, keys and queues; the rest is left out where it is not reached."""
    connection = context.connection
    reached = _reach(connection)
    yield reached
    if reached.status == FAILED:
        return
    yield _api_key(connection)
    yield _queues(context)


def _reach(connection: RunqyConnection) -> CheckResult:
    subject = "Server"
    try:
        is_healthy = api.ask(connection, api.health(), TIMEOUT)
    except RunqyError as error:
        return CheckResult(subject, FAILED, str(error))
    if not is_healthy:
        return CheckResult(
            subject,
            FAILED,
            f"{connection.server_url} answers, but is not healthy: its own Redis is "
            "unavailable, or this is not a runqy server. Check the server URL, and "
            "the log of the runqy server.",
        )
    return CheckResult(
        subject, OK, f"runqy at {connection.server_url} and its Redis answer."
    )


def _api_key(connection: RunqyConnection) -> CheckResult:
    try:
        api.ask(connection, api.check_key(), TIMEOUT)
    except RunqyError as error:
        return CheckResult("API key", FAILED, str(error))
    return CheckResult("API key", OK, "Accepted, and may enqueue jobs.")


def _queues(context: SinkContext) -> CheckResult:
    subject, connection = "Queues", context.connection
    try:
        known = known_queues(connection, context.runqy_redis, TIMEOUT)
        served = served_queues(connection, context.runqy_redis)
    except RunqyError as error:
        return CheckResult(subject, FAILED, str(error))
    if known is None or served is None:
        return CheckResult(
            subject,
            WARNING,
            "Not known: enter an admin key or runqy's own Redis. Without one of them, "
            "nothing tells you that no worker serves a queue, and the job of a killed "
            "task cannot be deleted.",
        )
    idle = sorted(known - served)
    if idle:
        return CheckResult(
            subject,
            WARNING,
            f"No live worker serves {', '.join(idle)}: start a runqy worker, or their "
            f"jobs wait. Served: {', '.join(sorted(served)) or 'none'}.",
        )
    return CheckResult(subject, OK, f"Live workers serve {', '.join(sorted(served))}.")
