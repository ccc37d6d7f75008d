# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Check the sink that tasks use by default, and the inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runqy_provider.airflow_compat import AirflowNotFoundException
from runqy_provider.checks.result import FAILED, OK, WARNING, CheckResult
from runqy_provider.errors import RunqyError
from runqy_provider.inbox.self_test import eviction_of
from runqy_provider.sinks.inbox import InboxBackend
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from runqy_provider.context import SinkContext


def check_inbox(context: SinkContext) -> CheckResult:
    """Write to the inbox, and read; say if its Redis may delete what is unread."""
    backend, subject = InboxBackend(context), "Inbox"
    try:
        backend.check()
        policy = eviction_of(backend.redis, backend.namespace)
    except RunqyError as error:
        return CheckResult(subject, FAILED, str(error))
    address = backend.redis.address
    if policy is not None:
        return CheckResult(
            subject,
            WARNING,
            f"Redis at {address} was written and read, but deletes deliveries that "
            f"nobody has read yet when its memory is full (maxmemory-policy {policy}): "
            "their tasks fail. Set maxmemory-policy to noeviction.",
        )
    return CheckResult(subject, OK, f"Redis at {address} was written and read.")


def check_sink(context: SinkContext) -> CheckResult:
    """Check the connection's sink as a task does before it enqueues a job."""
    uri, subject = context.connection.sink, "Default sink"
    try:
        sink_from_uri(uri).bind(context).check()
    except (RunqyError, AirflowNotFoundException) as error:
        return CheckResult(subject, FAILED, f"{uri!r} cannot be used: {error}")
    return CheckResult(subject, OK, f"{uri!r} can be used.")
