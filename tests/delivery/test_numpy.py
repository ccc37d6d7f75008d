"""Values of numpy in a result, and Python's types that numpy's subclass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery.errors import ResultNotEncodable
from runqy_delivery.json_encoder import JsonEncoder

if TYPE_CHECKING or not os.environ.get("RUNQY_DELIVERY_ALONE"):
    import numpy as np
else:
    np = pytest.importorskip("numpy")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(1.5), 1.5),
        (np.float64(0.1), 0.1),
        (np.int64(-3), -3),
        (np.bool_(True), True),  # noqa: FBT003 - numpy has no keyword for it
        (np.str_("a"), "a"),
        (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (np.array(7), 7),
        (np.array([]), []),
        (np.datetime64("2026-01-02T03:04"), "2026-01-02T03:04"),
        (np.datetime64(1, "ns"), "1970-01-01T00:00:00.000000001"),
        (np.array([["2026-01-02"]], dtype="M8[D]"), [["2026-01-02"]]),
        (np.array([1, {2}, np.int8(3)], dtype=object), [1, [2], 3]),
        (np.ma.masked_array([1, 2], mask=[False, True]), [1, None]),
        ({np.int64(3): np.array([1])}, {"3": [1]}),
    ],
)
def test_json_encoder_numpy_value_is_plain_json(value: Any, expected: Any) -> None:
    assert json.loads(JsonEncoder().dump({"value": value})) == {"value": expected}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (np.array([[1.0, np.nan]]), 'result["value"][0][1] is nan'),
        (np.float64("inf"), 'result["value"] is inf'),
        (np.datetime64("NaT"), 'result["value"] is nan'),
    ],
)
def test_json_encoder_numpy_nan_is_refused_with_its_place(
    value: Any, place: str
) -> None:
    with pytest.raises(ResultNotEncodable) as caught:
        JsonEncoder().dump({"value": value})

    assert place in str(caught.value)
    assert b"null" in JsonEncoder(nan="null").dump({"value": value})


@pytest.mark.parametrize(
    "value",
    [
        np.timedelta64(1, "ns"),
        np.array([1], dtype="m8[s]"),
        np.array([1j]),
        np.bytes_(b"x"),
    ],
)
def test_json_encoder_numpy_value_without_a_form_is_refused(value: Any) -> None:
    with pytest.raises(ResultNotEncodable, match="is of the type"):
        JsonEncoder().dump({"value": value})


def test_delivery_package_does_not_import_numpy() -> None:
    code = (
        "import sys, runqy_delivery.decorator as d; d.JsonEncoder().dump([{1}]); "
        "sys.exit('numpy' in sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
