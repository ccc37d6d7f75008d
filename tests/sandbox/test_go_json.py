# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of the JSON of Go."""

from __future__ import annotations

import pytest

from runqy_sandbox.server import go_json
from runqy_sandbox.server.go_json import GoJSONError


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ('{"b": [1.0, -0.0], "a": {}}', '{"a":{},"b":[1,-0]}'),
        ("12345678901234567890", "12345678901234567000"),
        ("[1e21, 1e-7, 0.00001, 1.5]", "[1e+21,1e-7,0.00001,1.5]"),
        ('"<é&>\\ud800"', '"\\u003cé\\u0026\\u003e\ufffd"'),
        ("[null, true]", "[null,true]"),
    ],
)
def test_encode_value_matches_go(text: str, encoded: str) -> None:
    assert go_json.encode(go_json.decode(text)) == encoded


@pytest.mark.parametrize(
    ("body", "start"),
    [
        (b"  ", "unexpected EOF"),
        (b'{"a":', "unexpected EOF"),
        (b"?", "invalid character"),
        (b"[NaN]", "invalid character"),
        (b'{"a":1 2}', "invalid character"),
    ],
)
def test_first_value_invalid_json_raises_error_like_go(body: bytes, start: str) -> None:
    with pytest.raises(GoJSONError) as caught:
        go_json.first_value(body)
    assert str(caught.value).startswith(start)


def test_raw_members_and_elements_return_unparsed_texts() -> None:
    assert go_json.raw_members('{ "a" : [1, 2] , "b":"x" }') == {
        "a": "[1, 2]",
        "b": '"x"',
    }
    assert go_json.raw_members("{}") == {}
    assert go_json.raw_elements('[ {"a": 1} , 2 ,[ ] ]') == ['{"a": 1}', "2", "[ ]"]


def test_null_and_missing_value_are_zero_values() -> None:
    assert go_json.as_type("null", str) == ""
    assert go_json.as_type(None, int) == 0
    assert go_json.kind(None) == "<nil>"
