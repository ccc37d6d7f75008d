"""Text from outside, made safe for logs and for Airflow's database."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runqy_provider.inbox.keys import LONGEST_TEXT, Progress
from runqy_provider.sanitize import is_storable, one_line, storable

ANY = st.text(st.characters())  # with lone surrogates


@given(ANY)
def test_sanitize_storable_text_is_storable(text: str) -> None:
    assert is_storable(storable(text))
    assert storable(text) == text or not is_storable(text)


@given(ANY)
def test_sanitize_one_line_is_printable_and_short(text: str) -> None:
    line = one_line(text, 40)

    assert len(line) <= 40
    assert line.isprintable()
    assert is_storable({"line": [line]})
    line.encode()


@pytest.mark.parametrize("value", ["a\0b", {"\ud800": 1}, ["ok", "\udfff"]])
def test_sanitize_text_refused_by_postgresql_is_not_storable(value: object) -> None:
    assert not is_storable(value)


def test_progress_with_unknown_field_is_read() -> None:
    newer = json.dumps({"at": 1.5, "text": "soon", "eta_seconds": 7}).encode()

    assert Progress.from_json(newer) == Progress(1.5, None, "soon")
    assert LONGEST_TEXT > 0
