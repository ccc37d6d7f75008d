# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""JSON as Go reads and writes it; it shows in runqy's responses and errors."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_EXPONENT_ZERO = re.compile(r"e-0")
_HTML = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})
_SURROGATE = re.compile("[\ud800-\udfff]")

#: Go writes numbers outside of this range with an exponent.
_MIN_PLAIN, _MAX_PLAIN = 1e-6, 1e21


class GoJSONError(ValueError):
    """Go rejects this JSON; the message is Go's."""


def first_value(body: bytes) -> str:
    """Return the text of the first JSON value of a body; Go ignores the rest.

    Raises:
        GoJSONError: The body does not start with a valid value.
    """
    text = body.decode("utf-8", "replace")
    start = _skip(text, 0)
    try:
        end = _decoder().raw_decode(text, start)[1]
    except json.JSONDecodeError as error:
        raise GoJSONError(_syntax_error(text, error)) from error
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
        name, end = _decoder().raw_decode(text, at)
        start = _skip(text, _skip(text, end) + 1)
        end = _decoder().raw_decode(text, start)[1]
        members[name] = text[start:end]
        at = _next(text, end)
    return members


def raw_elements(text: str) -> list[str]:
    """Split a valid JSON array into the unparsed texts of its elements."""
    elements = []
    at = _skip(text, 1)
    while text[at] != "]":
        end = _decoder().raw_decode(text, at)[1]
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


def as_string(text: str | None, target: str = "Go value") -> str:
    """Parse a JSON string; None (no such member) and null are empty.

    Args:
        text: The unparsed text of the value.
        target: The name of the field in the error message.

    Raises:
        GoJSONError: The value is not a string.
    """
    value = None if text is None else json.loads(text)
    if value is None or isinstance(value, str):
        return value or ""
    found = kind(value)
    raise GoJSONError(f"json: cannot unmarshal {found} into {target} of type string")


def as_int64(text: str | None, target: str = "Go value") -> int:
    """Parse a JSON integer; None (no such member) and null are zero.

    Args:
        text: The unparsed text of the value.
        target: The name of the field in the error message.

    Raises:
        GoJSONError: The value is not an integer.
    """
    value = None if text is None else json.loads(text)
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    shown = f"number {text}" if isinstance(value, float) else kind(value)
    raise GoJSONError(f"json: cannot unmarshal {shown} into {target} of type int64")


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=_reject_constant)


def _reject_constant(name: str) -> Any:
    # Python parses NaN and Infinity; JSON, and so Go, has neither.
    raise json.JSONDecodeError("Expecting value", name, 0)


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


def _syntax_error(text: str, error: json.JSONDecodeError) -> str:
    """Return Go's error message; for rare errors, a similar one."""
    if not text.strip():
        return "EOF"
    bad = error.doc[error.pos : error.pos + 1]
    if not bad:
        return "unexpected EOF"
    if error.msg.startswith("Expecting value"):
        return _bad_value(error.doc[error.pos :])
    contexts = {
        "Expecting property name": "looking for beginning of object key string",
        "Expecting ':'": "after object key",
        "Expecting ','": "after object key:value pair",
        "Invalid \\escape": "in string escape code",
        "Invalid control": "in string literal",
    }
    for start, context in contexts.items():
        if error.msg.startswith(start):
            return f"invalid character {bad!r} {context}"
    return "unexpected EOF"


def _bad_value(rest: str) -> str:
    """Return Go's error message for a text that does not start with a value."""
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
