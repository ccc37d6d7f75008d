# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Check the sink that tasks use by default, and the inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runqy_provider.airflow_compat import AirflowNotFoundException
from runqy_provider.checks.result import FAILED, OK, CheckResult
from runqy_provider.errors import RunqyError
from runqy_provider.sinks.inbox import InboxBackend
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from runqy_provider.context import SinkContext


def check_inbox(context: SinkContext) -> CheckResult:
    """Write to the inbox, and read."""
    backend = InboxBackend(context)
    try:
        backend.check()
    except RunqyError as error:
        return CheckResult("Inbox", FAILED, str(error))
    address = backend.redis.address
    return CheckResult("Inbox", OK, f"Redis at {address} was written and read.")


def check_sink(context: SinkContext) -> CheckResult:
    """Check the connection's sink as a task does before it enqueues a job."""
    uri, subject = context.connection.sink, "Default sink"
    try:
        sink_from_uri(uri).bind(context).check()
    except (RunqyError, AirflowNotFoundException) as error:
        return CheckResult(subject, FAILED, f"{uri!r} cannot be used: {error}")
    return CheckResult(subject, OK, f"{uri!r} can be used.")
