# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read single fields of Airflow connections, in all forms that people write.

A URI has only texts, JSON has numbers and booleans, and people write both.
"""

from __future__ import annotations

from typing import Any

from runqy_provider.errors import Misconfigured

_TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})
_FALSE = frozenset({"0", "false", "no", "off", "f", "n", "none", ""})


def boolean(value: Any, name: str, conn_id: str) -> bool:
    """Return a boolean field.

    Raises:
        Misconfigured: It is neither true nor false.
    """
    if isinstance(value, bool):
        return value
    text = str("" if value is None else value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise Misconfigured(
        f"{name} of connection {conn_id!r} must be true or false, not {value!r}."
    )


def whole_number(value: Any, name: str, conn_id: str) -> int:
    """Return a field that is a whole number, zero or more.

    Raises:
        Misconfigured: It is not such a number.
    """
    try:
        number = int(str(value).strip())
    except ValueError:
        number = -1
    if isinstance(value, bool) or number < 0:
        raise Misconfigured(
            f"{name} of connection {conn_id!r} must be a whole number, not {value!r}."
        )
    return number


def first_given(*values: Any) -> Any:
    """Return the first value that is given: not None, and not an empty text.

    Returns:
        None if none is given.
    """
    return next((value for value in values if value is not None and value != ""), None)
