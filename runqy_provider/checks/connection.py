# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Check a whole runqy connection."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from runqy_provider.airflow_compat import (
    AirflowNotFoundException,
    get_connection,
    may_ask_database,
)
from runqy_provider.checks.callback import check_callback
from runqy_provider.checks.result import FAILED, OK, WARNING, CheckResult
from runqy_provider.checks.server import check_server
from runqy_provider.checks.sink import check_inbox, check_sink
from runqy_provider.connections import needs_inbox
from runqy_provider.context import context_of
from runqy_provider.errors import RunqyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow.sdk import Connection

    from runqy_provider.context import SinkContext


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
        return [CheckResult("Connection", FAILED, f"{text}. Check its id.")]
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


def _check(connection: Connection) -> Iterator[CheckResult]:
    try:
        context = context_of(connection)
    except RunqyError as error:
        yield CheckResult("Connection", FAILED, str(error))
    else:
        yield from check_server(context)
        yield _weigh(context, check_inbox(context))
        yield _weigh(context, check_callback(context))
        yield check_sink(context)
    if may_ask_database():
        from runqy_provider.checks.airflow_database import (  # noqa: PLC0415 - same
            check_triggerer,
        )

        yield from check_triggerer()


def _weigh(context: SinkContext, found: CheckResult) -> CheckResult:
    """Return a failed check as a warning where the default sink does not need it."""
    if found.status != FAILED or needs_inbox(context.connection.sink):
        return found
    message = f"{found.message} (Needed only for the sinks webhook and amqp.)"
    return dataclasses.replace(found, status=WARNING, message=message)


def _without_repetition(results: Iterable[CheckResult]) -> Iterator[CheckResult]:
    """Refer to an earlier result where a message repeats it."""
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
