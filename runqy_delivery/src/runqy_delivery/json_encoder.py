# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Write values as JSON, and say which part of a value cannot be written."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Callable, Optional

from runqy_delivery.default_encoder import encode_default, type_name
from runqy_delivery.errors import ResultNotEncodable

#: What to do with NaN and the infinities.
REFUSE, NULL = "refuse", "null"
NAN_POLICIES = (REFUSE, NULL)

#: How much of the repr of a value an error message shows, in characters.
MAX_SHOWN = 200

#: Where a part of a value is: None at the top, else its parent's location and its key.
Location = Optional[tuple[Any, Any]]

#: The address that the default repr of an object ends with.
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")

_ADVICE = "Return a JSON value there, or convert it: @delivers(encoder=...)."

_ADVICE_AT_TOP = (
    "Return a JSON value, bytes, a pathlib.Path, or a Result of one of them; or "
    "convert it: @delivers(encoder=...)."
)


@dataclass(frozen=True)
class JsonEncoder:
    """How values are written as JSON.

    Args:
        encoder: Called with a value that JSON does not have; returns one to write
            instead, or raises TypeError for one that it does not know.
            ``encode_default`` is used if it is None or raises TypeError.
        nan: ``refuse`` raises an error for NaN and the infinities, ``null`` writes null
            for them.

    Raises:
        ValueError: ``nan`` is another text.
        TypeError: ``encoder`` cannot be called.
    """

    encoder: Callable[[Any], Any] | None = None
    nan: str = REFUSE

    def __post_init__(self) -> None:
        if self.nan not in NAN_POLICIES:
            raise ValueError(
                f"nan must be {' or '.join(map(repr, NAN_POLICIES))}, not {self.nan!r}."
            )
        if self.encoder is not None and not callable(self.encoder):
            raise TypeError(
                "encoder must be a function of one value, such as encoder=str, not a "
                f"{type_name(self.encoder)}."
            )

    def dump(self, value: Any, name: str = "result") -> bytes:
        """Return a value as JSON.

        Args:
            value: The value.
            name: What to call it in an error message: ``result["frames"][3]``.

        Raises:
            ResultNotEncodable: It has a part that cannot be written.
        """
        try:
            return _dump(value, self._replacement)
        except RecursionError as error:
            raise _too_deep(name) from error
        except (TypeError, ValueError):
            # json does not say which part of the value it was. This is slower.
            pass
        try:
            plain = self._plain(value, name, None)
        except RecursionError as error:
            raise _too_deep(name) from error
        try:
            return _dump(plain)
        except ValueError as error:  # an integer with thousands of digits
            raise ResultNotEncodable(
                f"{name} cannot be written as JSON: {error}. {_ADVICE}"
            ) from error

    def _plain(self, value: Any, name: str, location: Location) -> Any:
        """Return a value that consists of JSON's types only.

        Raises:
            ResultNotEncodable: It has a part that cannot be written.
        """
        if value is None or isinstance(value, (str, int)):
            return value
        if isinstance(value, float):
            return (
                value
                if math.isfinite(value)
                else self._no_number(value, name, location)
            )
        if isinstance(value, dict):
            return self._plain_dict(value, name, location)
        if isinstance(value, (list, tuple)):
            return [
                self._plain(each, name, (location, n)) for n, each in enumerate(value)
            ]
        try:
            replacement = self._replacement(value)
        except TypeError as error:
            raise ResultNotEncodable(
                f"{_path(name, location)} is of the type {type_name(value)}, which "
                f"JSON does not have: {shown(value)}. {_advice(value, location)}"
            ) from (None if self.encoder is None else error)
        return self._plain(replacement, name, location)

    def _plain_dict(
        self, value: dict[Any, Any], name: str, location: Location
    ) -> dict[Any, Any]:
        plain = {
            self._plain_key(key, name, location): self._plain(
                each, name, (location, key)
            )
            for key, each in value.items()
        }
        if len(plain) < len(value):
            raise ResultNotEncodable(
                f"{_path(name, location)} has two keys that are the same text in JSON. "
                "Rename one of them."
            )
        return plain

    def _plain_key(self, key: Any, name: str, location: Location) -> Any:
        known = key
        while not (known is None or isinstance(known, (str, int, float))):
            try:
                known = self._replacement(known)
            except TypeError:
                break
            if isinstance(known, (list, dict)):
                break  # never a key
        is_number = isinstance(known, float)
        if isinstance(known, (str, int)) or known is None:
            return known
        if is_number and math.isfinite(known):
            return known
        raise ResultNotEncodable(
            f"{_path(name, location)} has a key of the type {type_name(key)}: "
            f"{shown(key)}. Keys of a JSON object are texts: use str(key)."
        )

    def _no_number(self, value: float, name: str, location: Location) -> None:
        if self.nan == NULL:
            return
        raise ResultNotEncodable(
            f"{_path(name, location)} is {float(value)!r}, and JSON has no such "
            "number. Return another value there, or have null written: "
            '@delivers(nan="null").'
        )

    def _replacement(self, value: Any) -> Any:
        """Return what is written for a value that JSON does not have.

        Raises:
            TypeError: There is nothing to write for it.
        """
        if self.encoder is None:
            return encode_default(value)
        try:
            return self.encoder(value)
        except TypeError as error:
            try:
                return encode_default(value)
            except TypeError:
                raise error from None


def shown(value: Any, max_length: int = MAX_SHOWN) -> str:
    """Return the start of the repr of any value, without addresses of objects.

    Addresses differ between two runs of the same job, whose failures must not differ.
    """
    try:
        text = _ADDRESS.sub("", repr(value))
    except Exception as error:  # noqa: BLE001 - __repr__ of task code may raise anything
        return f"(its __repr__ raised {type(error).__name__})"
    return text if len(text) <= max_length else f"{text[:max_length]}..."


def _dump(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    return json.dumps(
        value, allow_nan=False, separators=(",", ":"), default=default
    ).encode()


def _too_deep(name: str) -> ResultNotEncodable:
    return ResultNotEncodable(
        f"{name} is nested too deeply for JSON, or contains itself. Return a flatter "
        "value, or convert it: @delivers(encoder=...)."
    )


def _advice(value: Any, location: Location) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return (
            "Return the bytes as the whole result, or write them as text, such as "
            "base64: @delivers(encoder=...)."
        )
    return _ADVICE if location else _ADVICE_AT_TOP


def _path(name: str, location: Location) -> str:
    """Return where a part of a value is, as Python code."""
    keys = []
    while location is not None:
        location, key = location
        keys.append(json.dumps(key) if isinstance(key, str) else shown(key, 40))
    return name + "".join(f"[{key}]" for key in reversed(keys))
