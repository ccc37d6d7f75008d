# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""JSON as Go reads and writes it: payloads reach task code in this form.

Errors start as Go's do, and then say what Python found.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, TypeVar

T = TypeVar("T", str, int)

_SPACE = re.compile(r"[ \t\n\r]*")
_EXPONENT_ZERO = re.compile(r"e-0")
_HTML = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})
_SURROGATE = re.compile("[\ud800-\udfff]")

#: Go writes numbers outside of this range with an exponent.
_MIN_PLAIN, _MAX_PLAIN = 1e-6, 1e21


class GoJSONError(ValueError):
    """Go rejects this JSON; the message starts as Go's."""


def first_value(body: bytes) -> str:
    """Return the text of the first JSON value of a body; Go ignores the rest.

    Raises:
        GoJSONError: The body does not start with a valid value.
    """
    text = body.decode("utf-8", "replace")
    start = _skip(text, 0)
    try:
        end = _DECODER.raw_decode(text, start)[1]
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(text)
        start_of_go = "unexpected EOF" if at_end else "invalid character"
        raise GoJSONError(f"{start_of_go}: {error}") from error
    return text[start:end]


def decode(text: str) -> Any:
    """Parse valid JSON; every number becomes a float, as in Go."""
    return json.loads(text, parse_int=float)


def encode(value: Any) -> str:
    """Encode a value as Go's ``json.Marshal`` does: compact, sorted, HTML-safe."""
    match value:
        case dict():
            items = (f"{encode(k)}:{encode(value[k])}" for k in sorted(value))
            return "{" + ",".join(items) + "}"
        case list():
            return "[" + ",".join(map(encode, value)) + "]"
        case float():
            return _number(value)
        case str():
            text = json.dumps(_SURROGATE.sub("\ufffd", value), ensure_ascii=False)
            return text.translate(_HTML)
    return json.dumps(value)


def raw_members(text: str) -> dict[str, str]:
    """Split a valid JSON object into its keys and the unparsed texts of its values."""
    members: dict[str, str] = {}
    at = _skip(text, 1)
    while text[at] != "}":
        name, end = _DECODER.raw_decode(text, at)
        start = _skip(text, _skip(text, end) + 1)
        end = _DECODER.raw_decode(text, start)[1]
        members[name] = text[start:end]
        at = _next(text, end)
    return members


def raw_elements(text: str) -> list[str]:
    """Split a valid JSON array into the unparsed texts of its elements."""
    elements = []
    at = _skip(text, 1)
    while text[at] != "]":
        end = _DECODER.raw_decode(text, at)[1]
        elements.append(text[at:end])
        at = _next(text, end)
    return elements


def kind(value: Any) -> str:
    """Return the name of a value's type in Go's errors."""
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case int() | float():
            return "number"
        case list():
            return "array"
        case dict():
            return "object"
    return "<nil>"


def as_type(text: str | None, kind_: type[T]) -> T:
    """Parse a string or an integer; None (no such member) and null are the empty value.

    Args:
        text: The unparsed text of the value.
        kind_: ``str`` or ``int``.

    Raises:
        GoJSONError: The value has another type.
    """
    value: object = None if text is None else json.loads(text)
    if value is None:
        return kind_()
    # A bool is an int in Python, and none in JSON.
    if isinstance(value, kind_) and not isinstance(value, bool):
        return value
    raise GoJSONError(f"json: cannot unmarshal {kind(value)}: {text}")


def _reject_constant(name: str) -> Any:
    # Python parses NaN and Infinity; JSON, and so Go, has neither.
    raise json.JSONDecodeError("Expecting value", name, 0)


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)


def _skip(text: str, at: int) -> int:
    """Return the position after any whitespace."""
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _next(text: str, at: int) -> int:
    """Return the position of the next member, or of the closing bracket."""
    at = _skip(text, at)
    return _skip(text, at + 1) if text[at] == "," else at


def _number(value: float) -> str:
    size = abs(value)
    if value and not _MIN_PLAIN <= size < _MAX_PLAIN:
        return _EXPONENT_ZERO.sub("e-", repr(value))
    return f"{Decimal(repr(value)):f}".removesuffix(".0")
