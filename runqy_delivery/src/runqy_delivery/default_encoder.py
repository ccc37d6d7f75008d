# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How values of common Python types are written as JSON, without importing numpy."""

from __future__ import annotations

import dataclasses
import math
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Callable
from uuid import UUID

#: Libraries whose arrays, tensors and scalars have ``dtype`` and ``tolist``.
ARRAY_LIBRARIES = frozenset({"cupy", "jax", "jaxlib", "numpy", "torch"})

#: numpy's codes for the kinds of ``datetime64`` and ``timedelta64``.
_DATETIME_KIND, _TIMEDELTA_KIND = "M", "m"


def encode_default(value: Any) -> Any:
    """Return what is written as JSON for a value that JSON does not have.

    =================================  ==============================================
    type                               JSON
    =================================  ==============================================
    arrays and scalars of numpy,       lists and numbers; ``datetime64`` as text by
    torch, jax and cupy                ISO 8601
    ``datetime``, ``date``, ``time``   text by ISO 8601; no time zone is added
    ``Decimal``                        text, because a number may lose digits
    ``UUID``, ``pathlib`` paths        text
    ``Enum``                           its value
    ``set``, ``frozenset``             a sorted list: sets have no order, and the same
                                       result must be written in the same way again
    dataclasses                        an object with their fields
    =================================  ==============================================

    What it returns may contain such values again. Values without a number or a time,
    such as ``Decimal("NaN")`` and ``NaT``, become a NaN.

    Args:
        value: Any value.

    Raises:
        TypeError: There is no obvious way to write the value as JSON. ``bytes`` are
            refused, too: they are not always text.
    """
    for kinds, form in _FORMS:
        if isinstance(value, kinds):
            return form(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name) for name in names}
    if _is_array(value):
        return _from_array(value)
    raise _unknown_type(value)


def type_name(value: Any) -> str:
    """Return the full name of a value's type, such as ``decimal.Decimal``."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _time_text(value: Any) -> Any:
    is_time = value == value  # noqa: PLR0124 - pandas' NaT differs from itself
    return value.isoformat() if is_time else math.nan


def _decimal_text(value: Decimal) -> Any:
    return str(value) if value.is_finite() else math.nan


def _in_order(values: Any) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:  # they are of types that cannot be compared
        return sorted(values, key=lambda each: (type_name(each), repr(each)))


#: Types, and what returns the form of their values; the first match counts.
_FORMS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: value.value),
    ((date, time), _time_text),  # datetime is a date, too
    (Decimal, _decimal_text),
    ((UUID, PurePath), str),
    ((set, frozenset), _in_order),
)


def _is_array(value: Any) -> bool:
    """True for arrays, tensors and scalars, recognised by where their classes are."""
    return hasattr(value, "tolist") and any(
        cls.__module__.partition(".")[0] in ARRAY_LIBRARIES
        for cls in type(value).__mro__
    )


def _from_array(value: Any) -> Any:
    kind = getattr(value.dtype, "kind", None)
    if kind == _TIMEDELTA_KIND:
        raise _unknown_type(value)  # tolist() may drop its unit
    if kind == _DATETIME_KIND:
        if value.shape:
            return list(value)
        text = str(value)
        return math.nan if text == "NaT" else text
    plain = value.tolist()
    if type(plain) is type(value):  # a longdouble, which Python's float cannot hold
        raise _unknown_type(value)
    return plain


def _unknown_type(value: Any) -> TypeError:
    return TypeError(f"JSON has no form for the type {type_name(value)}")
