"""The retries of functions: delays, the budget, and permanent errors."""

from __future__ import annotations

import pytest

from runqy_delivery import DeliveryUndeliverable, _retry


class FlakyFunction:
    """A function that fails a number of times before it succeeds."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise OSError(f"failure {self.calls}")
        return "done"


def test_retry_call_temporary_errors_are_retried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    function = FlakyFunction(failures=2)

    assert _retry.retry_call("Writing to x", function, (OSError,)) == "done"
    assert function.calls == 3
    assert "Writing to x failed: OSError: failure 2; retrying in" in caplog.text


def test_retry_call_used_up_budget_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_retry.RETRY_FOR_VARIABLE, "0")

    with pytest.raises(DeliveryUndeliverable, match=r"failed 1 time\(s\).*: failure 1"):
        _retry.retry_call("Writing to x", FlakyFunction(failures=9), (OSError,))


def test_retry_call_permanent_error_is_raised_unchanged() -> None:
    function = FlakyFunction(failures=1)

    with pytest.raises(OSError, match="failure 1"):
        _retry.retry_call("x", function, (OSError,), is_permanent=lambda _error: True)
    assert function.calls == 1


def test_delays_double_up_to_the_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retry, "INITIAL_DELAY", 1.0)
    monkeypatch.setattr(_retry, "MAX_DELAY", 4.0)
    delays = [delay for delay, _ in zip(_retry.delays(), range(50))]

    assert 0.5 <= delays[0] <= 1.0
    assert 1.0 <= delays[1] <= 2.0
    assert all(2.0 <= delay <= 4.0 for delay in delays[2:])
    assert len(set(delays)) > 40


@pytest.mark.parametrize(("text", "budget"), [("", 300), ("7", 7), ("soon", 300)])
def test_retry_budget_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, budget: float
) -> None:
    monkeypatch.setenv(_retry.RETRY_FOR_VARIABLE, text)

    assert _retry.retry_budget() == budget
