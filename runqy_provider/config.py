# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read the options of the section ``[runqy]`` of Airflow's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from runqy_provider.airflow_compat import conf
from runqy_provider.errors import Misconfigured
from runqy_provider.options import OPTIONS, SECTION, Config, default_of

if TYPE_CHECKING:
    from dataclasses import Field

#: The path under which the plugin mounts the receiver in Airflow's API server.
RECEIVER_PATH = "/runqy"


def load_config() -> Config:
    """Read the options as they are now.

    Raises:
        Misconfigured: The value of an option is out of range.
    """
    values = {option.name: _value(option) for option in OPTIONS}
    base_url = conf.get("api", "base_url", fallback=None)
    return Config(**values, receiver_url=_receiver_url(base_url))


def has_teams() -> bool:
    """Return whether connections may belong to teams (``[core] multi_team``)."""
    return bool(conf.getboolean("core", "multi_team", fallback=False))


def _value(option: Field[Any]) -> Any:
    read = conf.getint if isinstance(option.default, int) else conf.getfloat
    value = read(SECTION, option.name, fallback=default_of(option))
    minimum = option.metadata["minimum"]
    if value <= 0 if minimum is None else value < minimum:
        bound = "more than 0" if minimum is None else f"{minimum} or more"
        raise Misconfigured(
            f"[{SECTION}] {option.name} must be {bound}, not {value}. Change it in "
            "airflow.cfg, or in the environment."
        )
    return value


def _receiver_url(base_url: str | None) -> str | None:
    """Return the URL of Airflow's own receiver.

    ``[api] base_url`` may be only a path, such as ``/airflow/``: a browser knows the
    host, a worker does not.
    """
    parts = urlsplit(base_url or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return urljoin(f"{str(base_url).rstrip('/')}/", RECEIVER_PATH.lstrip("/"))
