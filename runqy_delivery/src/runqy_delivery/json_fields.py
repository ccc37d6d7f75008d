# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Read single fields of parsed JSON that comes from an untrusted sender."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runqy_delivery.errors import BadDelivery


def refuse_constant(name: str) -> None:
    """Reject NaN and the infinities; pass it to ``json.loads`` as ``parse_constant``.

    Raises:
        ValueError: Always. Python's parser accepts these constants, but they are not
            JSON.
    """
    raise ValueError(f"{name} is not JSON")


def finite(text: str) -> float:
    """Parse a number; pass it to ``json.loads`` as ``parse_float``.

    Raises:
        ValueError: The number is too large for a double. ``1e999`` is valid JSON, but
            Python parses it as infinity, which cannot be written as JSON again.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:32]} is too large")
    return number


def read_text(
    data: Mapping[str, Any], name: str, *, required: bool = False
) -> str | None:
    """Return a string field; None if an optional one is missing.

    Raises:
        BadDelivery: It is not a string, or a required one is missing or empty.
    """
    value = data.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str):
        raise BadDelivery(f"{name} must be a string, not {type(value).__name__}.")
    if required and not value:
        raise BadDelivery(f"{name} must not be empty.")
    return value


def read_number(
    data: Mapping[str, Any], name: str, kind: Any, least: float = -math.inf
) -> Any:
    """Return a number field; None if it is missing.

    Args:
        data: The object that has the field.
        name: Name of the field.
        kind: The accepted type: ``int``, or ``(int, float)``.
        least: The smallest accepted value.

    Raises:
        BadDelivery: It is not a number of that type, is beyond the range of a double,
            or is less than ``least``.
    """
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadDelivery(f"{name} must be a number, not {type(value).__name__}.")
    try:
        is_in_range = math.isfinite(value)
    except OverflowError:  # an int of any size, which Python reads
        is_in_range = False
    if not is_in_range:
        raise BadDelivery(f"{name} is a number beyond the range of a double.")
    if value < least:
        raise BadDelivery(f"{name} must be {least:g} or more.")
    return value


def read_mapping(data: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return an object field; None if it is missing.

    Raises:
        BadDelivery: It is not an object.
    """
    value = data.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise BadDelivery(f"{name} must be an object, not {type(value).__name__}.")
    return value
