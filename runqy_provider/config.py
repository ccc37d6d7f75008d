# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The options of the section ``[runqy]``: name, type, default, minimum and text.

Airflow reads their declaration from here, and ``settings.load_config`` their values.
Before 3.2 Airflow knows the defaults of a provider's options only in processes that its
command line has started, and not in the pods of its KubernetesExecutor: so code that
reads an option passes the default from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import Field

SECTION = "runqy"

DESCRIPTION = "Options of the runqy provider that apply to all connections."


def _option(default: float, text: str, *, minimum: int | None = None) -> Any:
    """Return the declaration of an option.

    Args:
        default: Its default, of its type.
        text: What it means, for users.
        minimum: The smallest value; None: it must be more than 0.
    """
    return field(default=default, metadata={"text": text, "minimum": minimum})


@dataclass(frozen=True)
class Config:
    """The options, each under its name in ``airflow.cfg``.

    Attributes:
        receiver_url: URL of the receiver in Airflow's API server; None if
            ``[api] base_url`` does not name a host. Not an option.
    """

    xcom_limit: int = _option(
        65536,
        "JSON results up to this many bytes go to XCom as values, larger ones as a "
        "reference.",
        minimum=0,
    )
    link_seconds: float = _option(
        86400.0,
        "Seconds for which the link to a result in an object store works; everyone who "
        "has the link can read the result. 0: tasks make no links.",
        minimum=0,
    )
    settle_seconds: float = _option(
        10.0,
        "A task that a worker must end is not resumed earlier than this many seconds "
        "after it deferred; a task that the triggerer ends does not wait. Airflow 3.3 "
        "fails a task that is resumed before the scheduler knows that its worker "
        "process has ended, which takes up to [workers] min_heartbeat_interval (5 s) "
        "and one more scheduler loop.",
        minimum=0,
    )
    inbox_sweep_seconds: float = _option(
        10.0, "Seconds between two polls of the inbox for all waiting tasks."
    )
    object_sweep_seconds: float = _option(
        5.0, "Seconds between two listings of a bucket for all waiting tasks."
    )
    poll_seconds: float = _option(
        0.5,
        "Seconds between two polls for a new job in a sink that gives no hints: a "
        "table, or runqy's own storage. The interval grows with the age of the job.",
    )
    longest_poll_seconds: float = _option(
        10.0, "The largest interval between two such polls, in seconds."
    )
    watch_seconds: float = _option(
        30.0,
        "Seconds between two polls of the jobs of all waiting tasks, to find those "
        "that ended without delivering. 0: jobs are not observed.",
        minimum=0,
    )
    vanished_grace_seconds: float = _option(
        15.0,
        "Seconds to wait for a delivery after runqy has forgotten its job, or says "
        "that it is completed.",
        minimum=0,
    )
    max_body_bytes: int = _option(
        8 * 1024 * 1024,
        "The largest delivery that the receiver accepts, in bytes.",
        minimum=1,
    )
    unread_ttl_seconds: int = _option(
        7 * 24 * 3600, "Seconds that an unread delivery is kept.", minimum=1
    )
    connection_ttl_seconds: float = _option(
        60.0,
        "Seconds for which a triggerer and an API server cache the fields of a "
        "connection.",
        minimum=0,
    )
    receiver_url: str | None = None


#: The fields of ``Config`` that are options.
OPTIONS: tuple[Field[Any], ...] = tuple(
    each for each in fields(Config) if each.metadata
)


def default_of(option: Field[Any]) -> str:
    """Return the default of an option as ``airflow.cfg`` would have it."""
    default = option.default
    return str(default) if isinstance(default, int) else f"{default:g}"


def declared_options() -> dict[str, Any]:
    """Return all options by Airflow's ``provider_info.schema.json``."""
    return {
        option.name: {
            "description": option.metadata["text"],
            "version_added": "0.3.0",
            "type": "integer" if isinstance(option.default, int) else "float",
            "example": None,
            "default": default_of(option),
        }
        for option in OPTIONS
    }
