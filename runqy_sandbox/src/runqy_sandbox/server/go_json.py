# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""JSON as Go reads and writes it, because runqy's answers show it."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_EXPONENT_ZERO = re.compile(r"e-0")
_HTML = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})
_SURROGATE = re.compile("[\ud800-\udfff]")

#: Go writes numbers from here on, and below the smaller one, with an exponent.
_LARGE, _SMALL = 1e21, 1e-6


class GoJSONError(ValueError):
    """Go would refuse this JSON; the text is Go's own."""


def first_value(body: bytes) -> str:
    """Return the text of the first JSON value of a body; Go ignores what follows.

    Raises:
        GoJSONError: There is no valid value.
    """
    text = body.decode("utf-8", "replace")
    start = _skip(text, 0)
    try:
        end = _decoder().raw_decode(text, start)[1]
    except json.JSONDecodeError as error:
        raise GoJSONError(_syntax_error(text, error)) from error
    return text[start:end]


def decode(text: str) -> Any:
    """Return the value of a valid JSON text; every number is a float, as in Go."""
    return json.loads(text, parse_int=float)


def encode(value: Any) -> str:
    """Write a value like Go's `json.Marshal`: compact, sorted keys, HTML-safe."""
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
    """Split a valid JSON object into its keys and the untouched texts of its values."""
    members: dict[str, str] = {}
    at = _skip(text, 1)
    while text[at] != "}":
        name, end = _decoder().raw_decode(text, at)
        start = _skip(text, _skip(text, end) + 1)
        end = _decoder().raw_decode(text, start)[1]
        members[name] = text[start:end]
        at = _next(text, end)
    return members


def raw_elements(text: str) -> list[str]:
    """Split a valid JSON array into the untouched texts of its elements."""
    elements = []
    at = _skip(text, 1)
    while text[at] != "]":
        end = _decoder().raw_decode(text, at)[1]
        elements.append(text[at:end])
        at = _next(text, end)
    return elements


def kind(value: Any) -> str:
    """Return the name that Go's errors give to a JSON value."""
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


def as_string(text: str | None, into: str = "Go value") -> str:
    """Read a member as a Go string; absent and null are empty."""
    value = None if text is None else json.loads(text)
    if value is None or isinstance(value, str):
        return value or ""
    found = kind(value)
    raise GoJSONError(f"json: cannot unmarshal {found} into {into} of type string")


def as_int64(text: str | None, into: str = "Go value") -> int:
    """Read a member as a Go int64; absent and null are zero."""
    value = None if text is None else json.loads(text)
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    shown = f"number {text}" if isinstance(value, float) else kind(value)
    raise GoJSONError(f"json: cannot unmarshal {shown} into {into} of type int64")


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> Any:
    # Python reads NaN and Infinity; JSON, and so Go, has neither.
    raise json.JSONDecodeError("Expecting value", name, 0)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _next(text: str, at: int) -> int:
    """Return where the next member starts, or the closing bracket stands."""
    at = _skip(text, at)
    return _skip(text, at + 1) if text[at] == "," else at


def _number(value: float) -> str:
    size = abs(value)
    if value and not _SMALL <= size < _LARGE:
        return _EXPONENT_ZERO.sub("e-", repr(value))
    return f"{Decimal(repr(value)):f}".removesuffix(".0")


def _syntax_error(text: str, error: json.JSONDecodeError) -> str:
    """Say what Go says; for rarer faults, something close to it."""
    if not text.strip():
        return "EOF"
    bad = error.doc[error.pos : error.pos + 1]
    if not bad:
        return "unexpected EOF"
    if error.msg.startswith("Expecting value"):
        return _bad_value(error.doc[error.pos :])
    where = {
        "Expecting property name": "looking for beginning of object key string",
        "Expecting ':'": "after object key",
        "Expecting ','": "after object key:value pair",
        "Invalid \\escape": "in string escape code",
        "Invalid control": "in string literal",
    }
    for start, place in where.items():
        if error.msg.startswith(start):
            return f"invalid character {bad!r} {place}"
    return "unexpected EOF"


def _bad_value(rest: str) -> str:
    for literal in ("true", "false", "null"):
        if rest[0] != literal[0]:
            continue
        for expected, found in zip(literal, rest, strict=False):
            if expected != found:
                return (
                    f"invalid character {found!r} in literal {literal} "
                    f"(expecting {expected!r})"
                )
        return "unexpected EOF"
    return f"invalid character {rest[0]!r} looking for beginning of value"
