# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read single fields of JSON that a stranger may have written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runqy_delivery.errors import BadDelivery


def refuse_constant(name: str) -> None:
    """Refuse NaN and the infinities, which Python would read."""
    raise ValueError(f"{name} is not JSON")


def finite(text: str) -> float:
    """Read a number, and refuse one that Python would take for infinity."""
    # 1e999 is JSON, but Python reads it as infinity, which nobody could write again.
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:32]} is too large")
    return number


def text(data: Mapping[str, Any], name: str, *, required: bool = False) -> str | None:
    """Return a text field; None where it is missing and may be."""
    value = data.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str) or (required and not value):
        raise BadDelivery(f"{name} must be a text, not {type(value).__name__}.")
    return value


def number(
    data: Mapping[str, Any], name: str, kind: Any, least: float = -math.inf
) -> Any:
    """Return a number field that a double can hold; None where it is missing.

    Args:
        data: The object.
        name: Name of the field.
        kind: ``int``, or ``(int, float)``.
        least: The smallest number that makes sense there.

    Raises:
        BadDelivery: It is no number, too large for a double, or less than that.
    """
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadDelivery(f"{name} must be a number, not {type(value).__name__}.")
    try:
        is_held = math.isfinite(value)  # a whole number of Python's has any length
    except OverflowError:
        is_held = False
    if not is_held:
        raise BadDelivery(f"{name} is a number beyond the range of a double.")
    if value < least:
        raise BadDelivery(f"{name} must be {least:g} or more.")
    return value


def mapping(data: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return an object field; None where it is missing."""
    value = data.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise BadDelivery(f"{name} must be an object, not {type(value).__name__}.")
    return value
