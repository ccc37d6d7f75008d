# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""JSON in the manner of Go."""

from __future__ import annotations

import pytest

from runqy_sandbox.server import go_json
from runqy_sandbox.server.go_json import GoJSONError


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('{"b": [1.0, -0.0], "a": {}}', '{"a":{},"b":[1,-0]}'),
        ("12345678901234567890", "12345678901234567000"),
        ("[1e21, 1e-7, 0.00001, 1.5]", "[1e+21,1e-7,0.00001,1.5]"),
        ('"<é&>\\ud800"', '"\\u003cé\\u0026\\u003e\ufffd"'),
        ("[null, true]", "[null,true]"),
    ],
)
def test_values_are_written_like_go(text: str, written: str) -> None:
    assert go_json.encode(go_json.decode(text)) == written


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"  ", "EOF"),
        (b'{"a":', "unexpected EOF"),
        (b'{"a": tru', "unexpected EOF"),
        (b'"abc', "unexpected EOF"),
        (b"?", "invalid character '?' looking for beginning of value"),
        (b"[NaN]", "invalid character 'N' looking for beginning of value"),
        (b"{a}", "invalid character 'a' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 2}', "invalid character '2' after object key:value pair"),
        (b'"\\x"', "in string escape code"),
    ],
)
def test_faults_are_named_like_go(body: bytes, error: str) -> None:
    with pytest.raises(GoJSONError) as caught:
        go_json.first_value(body)
    assert error in str(caught.value)


def test_raw_texts_stay_as_they_are() -> None:
    assert go_json.raw_members('{ "a" : [1, 2] , "b":"x" }') == {
        "a": "[1, 2]",
        "b": '"x"',
    }
    assert go_json.raw_members("{}") == {}
    assert go_json.raw_elements('[ {"a": 1} , 2 ,[ ] ]') == ['{"a": 1}', "2", "[ ]"]


def test_null_is_a_zero_value() -> None:
    assert go_json.as_string("null") == ""
    assert go_json.as_int64(None) == 0
    assert go_json.kind(None) == "<nil>"
