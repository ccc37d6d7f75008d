# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A task's payload as plain JSON, from all objects that Airflow puts into it.

XComs of mapped tasks come as lazy sequences, native templates give ``DateTime``
objects, and a template that ends in ``tojson`` gives a text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from runqy_delivery.wire import RESERVED_FIELDS
from runqy_provider.errors import InvalidPayload

#: Most levels of nesting: far more than any payload has, and less than Python's limit.
MAX_DEPTH = 200

#: Types without one fixed order or form: a retry must get the same payload.
_UNORDERED_OR_BYTES = (set, frozenset, bytes, bytearray, memoryview)


def plain_payload(payload: Any, runqy_queue: str) -> dict[str, Any]:
    """Return a payload as a JSON object.

    Args:
        payload: A mapping, or a text that is a JSON object.
        runqy_queue: The queue, for messages.

    Raises:
        InvalidPayload: It is neither, holds something that is not JSON (the message
            names the path to it), or a field that the delivery request needs.
    """
    what = f"The payload for queue {runqy_queue!r}"
    if isinstance(payload, str):
        payload = _parsed(payload, what)
    if not isinstance(payload, Mapping):
        raise InvalidPayload(
            f"{what} is a {type(payload).__name__}. It must be an object (a dict, or "
            "a text with a JSON object), because the request to deliver the result is "
            "added to its fields. Put the value into one: payload={'input': ...}."
        )
    taken = [name for name in RESERVED_FIELDS if name in payload]
    if taken:
        raise InvalidPayload(
            f"{what} has the field {taken[0]!r}, in which the request to deliver the "
            "result is sent. Rename it."
        )
    plain: dict[str, Any] = _plain(payload, "payload", what, 0)
    return plain


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidPayload(
            f"{what} is a text that is not JSON ({error}). In a template, end the "
            'expression with the filter tojson: payload="{{ dag_run.conf | tojson }}".'
        ) from error


def _plain(value: Any, path: str, what: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidPayload(
            f"{what} is nested more than {MAX_DEPTH} levels deep, or contains itself."
        )
    if isinstance(value, str | int | type(None)):
        return value
    if isinstance(value, Mapping):
        return {
            _name(key, path, what): _plain(each, f"{path}[{key!r}]", what, depth + 1)
            for key, each in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        # Also XComs of mapped tasks: zipped, concatenated, or with a function applied.
        return [
            _plain(each, f"{path}[{n}]", what, depth + 1)
            for n, each in enumerate(value)
        ]
    return _encoded(value, path, what)


def _name(key: Any, path: str, what: str) -> str:
    if isinstance(key, str):
        return key
    raise InvalidPayload(
        f"{what} has the name {key!r} at {path}: names in a JSON object are texts."
    )


def _encoded(value: Any, path: str, what: str) -> Any:
    """Return times, UUIDs, decimals and the like as Airflow's API writes them."""
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise InvalidPayload(
            f"{what} holds {value} at {path}, which JSON cannot write. Use null "
            "(None) or a text for it."
        )
    if not isinstance(value, _UNORDERED_OR_BYTES):
        try:
            return to_jsonable_python(value)
        except PydanticSerializationError:
            pass
    raise InvalidPayload(
        f"{what} holds a {type(value).__name__} at {path}, which is not JSON. A "
        "payload holds texts, numbers, booleans, null, lists and objects."
    )
