"""The lines of a stream."""

from __future__ import annotations

import io

import pytest

from runqy_provider.sinks.batch_result import PIECE, lines_of


def test_lines_of_a_long_line_are_read_in_linear_time_and_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runqy_provider.sinks.batch_result.LONGEST", 10 * PIECE)

    with pytest.raises(ValueError, match="more than"):
        list(lines_of(io.BytesIO(b"x" * 11 * PIECE)))


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\n\nb", [b"a", b"", b"b"]),
        (b"x" * (PIECE + 1) + b"\ny\n", [b"x" * (PIECE + 1), b"y"]),
    ],
)
def test_lines_of_a_stream_are_whole(data: bytes, lines: list[bytes]) -> None:
    assert list(lines_of(io.BytesIO(data))) == lines
