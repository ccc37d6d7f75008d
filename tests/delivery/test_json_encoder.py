"""How results of other types are written as JSON, and what cannot be written."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import sys
import types
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest

from runqy_delivery import delivers
from runqy_delivery.errors import ResultNotEncodable
from runqy_delivery.json_encoder import JsonEncoder, shown


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Box:
    side: int
    inner: Any = None


def encoded(value: Any, **options: Any) -> Any:
    return json.loads(JsonEncoder(**options).dump(value))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            datetime(2026, 1, 2, 3, 4, 5, 6, timezone.utc),
            "2026-01-02T03:04:05.000006+00:00",
        ),
        (datetime(2026, 1, 2, 3, 4), "2026-01-02T03:04:00"),  # noqa: DTZ001 - a naive time on purpose
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (Decimal("1.10"), "1.10"),
        (Decimal("1E+40"), "1E+40"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (PurePosixPath("/a/b.wav"), "/a/b.wav"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({"a", 1, None}, [None, 1, "a"]),
        ((1, (2,)), [1, [2]]),
        (
            Box(1, Box(2, {Colour.RED})),
            {"side": 1, "inner": {"side": 2, "inner": ["red"]}},
        ),
        ({UUID(int=5): 1}, {"00000000-0000-0000-0000-000000000005": 1}),
        ({date(2026, 1, 2): Decimal("0.1")}, {"2026-01-02": "0.1"}),
        ({1: "a", None: "b", False: "c"}, {"1": "a", "null": "b", "false": "c"}),
        ({Colour.RED: [PurePosixPath("x")]}, {"red": ["x"]}),
    ],
)
def test_json_encoder_common_type_has_documented_form(
    value: Any, expected: Any
) -> None:
    assert encoded({"value": value}) == {"value": expected}


def test_json_encoder_plain_value_is_unchanged() -> None:
    value = {"a": [1, 2.5, None, True, "ü\ud800"], "b": {}}

    assert encoded(value) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"frames": [1, 2, 3, 1j]}, 'result["frames"][3] is of the type complex'),
        (
            [{"a b": {"c": (object(),)}}],
            'result[0]["a b"]["c"][0] is of the type object',
        ),
        ([Box(1, 1j)], 'result[0]["inner"] is of the type complex'),
        ({Colour.RED: 1j}, "result[<Colour.RED: 'red'>] is of the type complex"),
        (
            [b"x"],
            "result[0] is of the type bytes, which JSON does not have: b'x'",
        ),
        ([timedelta(1)], "result[0] is of the type datetime.timedelta"),
        ((n for n in (1, 2)), "result is of the type generator"),
        ([Box], "result[0] is of the type type"),
        ({"a": {(1, 2): 1}}, 'result["a"] has a key of the type tuple: (1, 2)'),
        ({frozenset({1}): 1}, "result has a key of the type frozenset"),
        ({math.nan: 1}, "result has a key of the type float: nan"),
        ({PurePosixPath("a"): 1, "a": 2}, "two keys that are the same text"),
    ],
)
def test_json_encoder_unknown_type_error_names_its_place(
    value: Any, message: str
) -> None:
    with pytest.raises(ResultNotEncodable) as caught:
        JsonEncoder().dump(value)

    assert message in str(caught.value)


class NotATime(datetime):
    """Like NaT of pandas, which is a datetime that differs from itself."""

    def __eq__(self, _other: object) -> bool:
        return False

    __hash__ = datetime.__hash__


@pytest.mark.parametrize(
    ("value", "shown_as"),
    [
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (Decimal("NaN"), "nan"),
        (Decimal("Infinity"), "nan"),
        (NotATime(2026, 1, 2), "nan"),
    ],
)
def test_json_encoder_nan_is_refused_or_null(value: Any, shown_as: str) -> None:
    result = {"scores": [0.5, {"loss": value}]}

    with pytest.raises(ResultNotEncodable) as caught:
        JsonEncoder().dump(result)

    assert f'result["scores"][1]["loss"] is {shown_as}' in str(caught.value)
    assert 'nan="null"' in str(caught.value)
    assert encoded(result, nan="null") == {"scores": [0.5, {"loss": None}]}


def test_json_encoder_own_encoder_is_called_first() -> None:
    def encoder(value: Any) -> Any:
        if isinstance(value, Decimal):
            return float(value)
        if isinstance(value, complex):
            return {"parts": (value.real, Colour.RED)}
        raise TypeError

    value = [Decimal("0.5"), 1 + 2j, date(2026, 1, 2)]

    expected = [0.5, {"parts": [1, "red"]}, "2026-01-02"]
    assert encoded(value, encoder=encoder) == expected


def test_json_encoder_own_encoder_is_called_for_keys() -> None:
    assert encoded({(1, 2): 3}, encoder=str) == {"(1, 2)": 3}


def test_json_encoder_type_error_of_own_encoder_is_the_cause() -> None:
    def encoder(_value: Any) -> Any:
        raise TypeError("only frames, please")

    with pytest.raises(ResultNotEncodable) as caught:
        encoded([object()], encoder=encoder)

    assert "only frames, please" in str(caught.value.__cause__)


def test_json_encoder_other_error_of_own_encoder_is_raised() -> None:
    def encoder(_value: Any) -> Any:
        raise ValueError("a bug of the encoder")

    with pytest.raises(ValueError, match="a bug of the encoder"):
        encoded([object()], encoder=encoder)


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (circular(), {}),
        (1j, {"encoder": lambda value: value}),
        (1j, {"encoder": lambda value: [value]}),
    ],
    ids=["list", "encoder returns its argument", "encoder returns it in a list"],
)
def test_json_encoder_value_in_itself_is_refused(
    value: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(ResultNotEncodable, match="nested too deeply"):
        JsonEncoder(**options).dump(value)


@pytest.mark.skipif(
    not hasattr(sys, "set_int_max_str_digits"), reason="this Python has no such limit"
)
def test_json_encoder_integer_with_too_many_digits_is_refused() -> None:
    with pytest.raises(ResultNotEncodable, match="cannot be written as JSON"):
        JsonEncoder().dump([10**10_000])


def test_json_encoder_message_has_no_addresses() -> None:
    """The failures of two runs of a job must be the same."""
    assert shown([object()]) == "[<object object>]"


def test_json_encoder_broken_repr_is_named() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    with pytest.raises(
        ResultNotEncodable, match="its __repr__ raised ZeroDivisionError"
    ):
        JsonEncoder().dump([Broken()])


def test_json_encoder_tensor_is_a_list_without_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tensors of torch are recognised by their module, which is not imported."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    dtype = types.SimpleNamespace()
    members = {"__module__": "torch", "dtype": dtype, "tolist": lambda _self: [1.5]}
    tensor = type("Parameter", (type("Tensor", (), members),), {})()

    assert encoded({"weights": tensor}) == {"weights": [1.5]}
    assert "torch" not in sys.modules


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"nan": "zero"}, ValueError, "nan must be 'refuse' or 'null'"),
        ({"encoder": "str"}, TypeError, "encoder must be a function"),
        ({"log": "sometimes"}, ValueError, "log must be one of 'failures'"),
    ],
)
def test_delivers_unknown_option_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        delivers(**options)
