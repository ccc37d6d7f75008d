# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Every option of the section ``[runqy]`` of Airflow's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from runqy_provider.airflow_compat import conf
from runqy_provider.errors import Misconfigured
from runqy_provider.options import OPTIONS

SECTION = "runqy"

#: The path under which the plugin mounts the receiver in Airflow's API server.
RECEIVER_PATH = "/runqy"


@dataclass(frozen=True)
class Config:
    """The options, read and checked; ``docs/reference/configuration.md`` lists them.

    Attributes:
        xcom_limit: Largest JSON result that goes to XCom as a value, in bytes.
        link_seconds: Lifetime of a link to a result; 0: no links are made.
        settle_seconds: Shortest time between a deferral and a resume on a worker.
        inbox_interval: Seconds between two polls of the inbox.
        object_interval: Seconds between two listings of a bucket.
        poll_interval: Seconds between two polls of a source without hints.
        max_poll_interval: The same interval for a job that has waited for long.
        watch_interval: Seconds between two polls of the jobs themselves; 0: never.
        vanished_grace: Seconds between the end of a job and the error that says that
            it delivered nothing.
        max_body_bytes: Largest delivery that the receiver accepts.
        unread_ttl: Seconds that an unread delivery is kept.
        connection_ttl: Seconds that the fields of a connection are cached.
        receiver_url: URL of the receiver in Airflow's API server; None where
            ``[api] base_url`` does not name a host.
    """

    xcom_limit: int
    link_seconds: float
    settle_seconds: float
    inbox_interval: float
    object_interval: float
    poll_interval: float
    max_poll_interval: float
    watch_interval: float
    vanished_grace: float
    max_body_bytes: int
    unread_ttl: int
    connection_ttl: float
    receiver_url: str | None


def load_config() -> Config:
    """Read the options as they are now.

    Raises:
        Misconfigured: The value of an option is out of range.
    """
    return Config(
        xcom_limit=_integer("xcom_limit", minimum=0),
        link_seconds=_seconds("link_seconds", minimum=0),
        settle_seconds=_seconds("settle_seconds", minimum=0),
        inbox_interval=_seconds("inbox_sweep_seconds"),
        object_interval=_seconds("object_sweep_seconds"),
        poll_interval=_seconds("poll_seconds"),
        max_poll_interval=_seconds("longest_poll_seconds"),
        watch_interval=_seconds("watch_seconds", minimum=0),
        vanished_grace=_seconds("vanished_grace_seconds", minimum=0),
        max_body_bytes=_integer("max_body_bytes", minimum=1),
        unread_ttl=_integer("unread_ttl_seconds", minimum=1),
        connection_ttl=_seconds("connection_ttl_seconds", minimum=0),
        receiver_url=_receiver_url(conf.get("api", "base_url", fallback=None)),
    )


def has_teams() -> bool:
    """Return whether connections may belong to teams (``[core] multi_team``)."""
    return bool(conf.getboolean("core", "multi_team", fallback=False))


def _integer(option: str, *, minimum: int) -> int:
    value: int = conf.getint(SECTION, option, fallback=_default(option))
    if value < minimum:
        raise Misconfigured(
            f"[{SECTION}] {option} must be {minimum} or more, not {value}."
        )
    return value


def _seconds(option: str, *, minimum: float | None = None) -> float:
    """Read a number of seconds; without a minimum it must be more than 0."""
    value: float = conf.getfloat(SECTION, option, fallback=_default(option))
    is_valid = value > 0 if minimum is None else value >= minimum
    if not is_valid:
        bound = "more than 0" if minimum is None else f"{minimum:g} or more"
        raise Misconfigured(
            f"[{SECTION}] {option} must be {bound} seconds, not {value:g}."
        )
    return value


def _default(option: str) -> Any:
    return OPTIONS[option]["default"]


def _receiver_url(base_url: str | None) -> str | None:
    """Return the URL of Airflow's own receiver.

    ``[api] base_url`` may be only a path, such as ``/airflow/``: a browser knows the
    host, a worker does not.
    """
    parts = urlsplit(base_url or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return urljoin(f"{str(base_url).rstrip('/')}/", RECEIVER_PATH.lstrip("/"))
