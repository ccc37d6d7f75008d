# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The options in the URI of a sink: ``scheme://where?option=value``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from runqy_provider.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

_BOOLEANS = {"true": True, "false": False}


def options_of(uri: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a URI gives.

    Args:
        uri: The URI.
        defaults: Each option and its default: True, False, a text, or None.

    Raises:
        Misconfigured: An option is unknown, or is neither true nor false but must be.
    """
    parts = urlsplit(uri)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(given.keys() - defaults)
    if unknown:
        *first, last = defaults
        known = f"{', '.join(first)} and {last}" if first else last
        raise Misconfigured(
            f"A sink {parts.scheme}:// has the options {known}, not "
            f"{', '.join(unknown)}. A '?' that belongs to a name is written %3F."
        )
    return {
        name: _boolean(name, text) if isinstance(defaults[name], bool) else text
        for name, text in given.items()
    }


def query_of(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return the query of a URI that gives the options that differ from the defaults.

    Args:
        values: Each option and its value.
        defaults: See ``options_of``.
    """
    given = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in values.items()
        if value != defaults[name]
    }
    return f"?{urlencode(given)}" if given else ""


def _boolean(name: str, text: str) -> bool:
    if text not in _BOOLEANS:
        raise Misconfigured(f"{name} of a sink must be true or false, not {text!r}.")
    return _BOOLEANS[text]
