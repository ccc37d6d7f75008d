"""What has arrived is read again while its sink is unavailable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runqy_provider.errors import NotThere, SinkUnavailable
from runqy_provider.jobs import outcome
from runqy_provider.jobs.outcome import while_unavailable

if TYPE_CHECKING:
    from collections.abc import Callable


def failing(*errors: Exception) -> Callable[[], str]:
    """Return a call that raises these errors, one after the other, and then returns."""
    left = list(errors)

    def read() -> str:
        if left:
            raise left.pop(0)
        return "result"

    return read


def test_read_again_returns_what_comes_after_the_sink_was_unavailable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read = failing(SinkUnavailable("Redis is away."), SinkUnavailable("Still away."))

    assert while_unavailable(read) == "result"
    assert caplog.messages == [
        "Redis is away. It will be tried again.",
        "Still away. It will be tried again.",
    ]


def test_read_again_other_error_is_raised_at_once() -> None:
    with pytest.raises(NotThere):
        while_unavailable(failing(NotThere("It has expired.")))


def test_read_again_sink_unavailable_for_long_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outcome, "READ_AGAIN_FOR", 0.0)

    with pytest.raises(SinkUnavailable, match=r"Redis is away\."):
        while_unavailable(failing(SinkUnavailable("Redis is away.")))
