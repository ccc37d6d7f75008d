# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The options of the section ``[runqy]``, as Airflow reads their declaration.

Before 3.2 Airflow knows the defaults of a provider's options only in processes that its
command line has started, and not in the pods of its KubernetesExecutor: so whoever
reads an option gives it the default from here.
"""

from __future__ import annotations

from typing import Any

DESCRIPTION = "Options of the runqy provider that apply to all connections."


def _option(kind: str, default: str, description: str) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": None,
        "default": default,
    }


OPTIONS = {
    "xcom_limit": _option(
        "integer",
        "65536",
        "JSON results up to this many bytes go to XCom as values, larger ones as a "
        "reference.",
    ),
    "link_seconds": _option(
        "float",
        "86400",
        "Seconds for which the link to a result in an object store works; everyone who "
        "has the link can read the result. 0: tasks make no links.",
    ),
    "settle_seconds": _option(
        "float",
        "10",
        "A task that a worker must end is not resumed earlier than this many seconds "
        "after it deferred; a task that the triggerer ends need not wait. Airflow 3.3 "
        "fails a task that is resumed before the scheduler knows that its worker "
        "process has ended, which is up to [workers] min_heartbeat_interval (5 s) and "
        "a pass of the scheduler later.",
    ),
    "inbox_sweep_seconds": _option(
        "float", "10", "Seconds between two polls of the inbox for all waiting tasks."
    ),
    "object_sweep_seconds": _option(
        "float",
        "5",
        "Seconds between two listings of a bucket for all waiting tasks.",
    ),
    "poll_seconds": _option(
        "float",
        "0.5",
        "Seconds between two polls for a new job in a sink that gives no hints: a "
        "table, or runqy's own storage. The interval grows with the age of the job.",
    ),
    "longest_poll_seconds": _option(
        "float", "10", "The largest interval between two such polls, in seconds."
    ),
    "watch_seconds": _option(
        "float",
        "30",
        "Seconds between two polls of the jobs of all waiting tasks, to find those "
        "that ended without delivering. 0: jobs are not observed.",
    ),
    "vanished_grace_seconds": _option(
        "float",
        "15",
        "Seconds for which a delivery is still waited for once runqy has forgotten its "
        "job, or says that it is completed.",
    ),
    "max_body_bytes": _option(
        "integer",
        "8388608",
        "The largest delivery that the receiver accepts, in bytes.",
    ),
    "unread_ttl_seconds": _option(
        "integer", "604800", "Seconds that an unread delivery is kept."
    ),
    "connection_ttl_seconds": _option(
        "float",
        "60",
        "Seconds for which a triggerer and an API server cache the fields of a "
        "connection.",
    ),
}
