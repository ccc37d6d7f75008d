"""The end of a log: how it is bounded, cleaned, and hidden secrets."""

from __future__ import annotations

import json
import threading

import pytest

from runqy_delivery import Delivery, DeliveryRequest
from runqy_delivery.log_tail import MAX_BYTES, MAX_LINE, MAX_LINES, LogTail
from runqy_delivery.result import message_of, with_log
from runqy_delivery.secret_mask import SecretMask


def test_log_tail_keeps_last_lines_and_counts_the_others() -> None:
    tail = LogTail()
    for number in range(MAX_LINES + 50):
        tail.add(f"line {number}")

    first, second, *_, last = tail.text().split("\n")

    assert first == "... 50 earlier lines are left out ..."
    assert (second, last) == ("line 50", f"line {MAX_LINES + 49}")


@pytest.mark.parametrize("text", ["x" * 1000, "ü" * 1000, "x" * 100_000])
def test_log_tail_has_at_most_max_bytes(text: str) -> None:
    tail = LogTail()
    for _ in range(50):
        tail.add(text)
        tail.write(text)
        tail.write("\n")

    size = len(tail.text().encode())

    assert MAX_BYTES - MAX_LINE - 100 < size < MAX_BYTES + 100


def test_log_tail_stream_is_split_into_lines() -> None:
    tail = LogTail()
    for part in ("one ", "line\n", "\n", "two\nthr", "ee"):
        tail.write(part)

    assert tail.text() == "one line\n\ntwo\nthree"


def test_log_tail_progress_bar_is_one_line() -> None:
    tail = LogTail()
    for percent in range(101):
        tail.write(f"\r{percent}%")
    tail.write("\r\n")
    tail.write("windows\r\n")
    tail.write("\r50% of the next")

    assert tail.text() == "100%\nwindows\n50% of the next"


def test_log_tail_stream_without_end_of_line_is_bounded() -> None:
    tail = LogTail()
    for _ in range(100):
        tail.write("x" * 10_000)

    assert len(tail.text()) <= MAX_LINE + 10


def test_log_tail_removes_what_is_not_text() -> None:
    tail = LogTail()
    tail.add("\x1b[31mred\x1b[0m\x00\t\ud800 end\x07")

    assert tail.text() == "red\t? end"


def test_log_tail_of_many_threads_has_whole_lines() -> None:
    tail = LogTail()

    def write() -> None:
        for _ in range(100):
            tail.add("a whole line")

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    lines = tail.text().split("\n")
    assert lines[0] == f"... {800 - MAX_LINES} earlier lines are left out ..."
    assert set(lines[1:]) == {"a whole line"}


SECRET_URL = "https://u:LOGIN-PASSWORD@air/runqy/d?expires=1790000000&token=T%2FKEN-123"


@pytest.mark.parametrize(
    "field", ["webhook_url", "failure_url", "put_url", "failed_put_url"]
)
def test_secret_mask_hides_urls_of_the_request(field: str) -> None:
    request = DeliveryRequest("d-1", **{field: SECRET_URL})  # type: ignore[arg-type]
    mask = SecretMask(request)

    hidden = mask.hide_in(
        f"POST {SECRET_URL} 500; token T/KEN-123 or T%2FKEN-123; "
        "?expires=1790000000&token=T%2FKEN-123; LOGIN-PASSWORD; at 1790000000"
    )

    assert "KEN-123" not in hidden
    assert "LOGIN-PASSWORD" not in hidden
    assert "POST https://air/runqy/d?*** 500; token *** or ***" in hidden
    assert hidden.endswith("at 1790000000")


def test_secret_mask_hides_addresses_of_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUNQY_DELIVERY_DATABASE_URL", "postgresql://u:p@db/x")

    hidden = SecretMask(DeliveryRequest("d-1")).hide_in("at postgresql://u:p@db/x now")

    assert hidden == "at *** (RUNQY_DELIVERY_DATABASE_URL) now"


def test_secret_mask_invalid_url_is_hidden() -> None:
    mask = SecretMask(DeliveryRequest("d-1", webhook_url="https://[broken"))

    assert mask.hide_in("to https://[broken") == "to ***"


def test_log_tail_hides_secret_before_a_long_line_is_cut() -> None:
    mask = SecretMask(DeliveryRequest("d-1", webhook_url=SECRET_URL))
    tail = LogTail(mask.hide_in)
    tail.add("x" * (MAX_LINE - 10) + SECRET_URL)

    assert "http" not in tail.text()[:-20]
    assert "T%2F" not in tail.text()


LOG = "\n".join(f"line {number} ü" for number in range(100))


def test_with_log_without_limit_is_whole() -> None:
    body = with_log(Delivery("d", result={"a": 1}).to_json(), LOG, None)

    assert Delivery.from_json(body) == Delivery("d", result={"a": 1}, log=LOG)


@pytest.mark.parametrize("spare", [-50, 0, 7, 8, 9, 30, 31, 50, 500, 1000, 5000])
def test_with_log_is_shortened_to_max_bytes(spare: int) -> None:
    body = Delivery("d", result={"a": 1}).to_json()
    max_bytes = len(body) + spare

    message = with_log(body, LOG, max_bytes)

    assert len(message) <= max(max_bytes, len(body))
    delivery = Delivery.from_json(message)
    assert delivery.result == {"a": 1}
    if delivery.log is None:
        assert spare < 40
    else:
        assert LOG.endswith(delivery.log)
        assert delivery.log.startswith("line ")
        is_longest = len(message) + len(json.dumps("line 10 ü\n")) > max_bytes
        assert is_longest or delivery.log == LOG


def test_message_of_delivery_without_log_is_its_json() -> None:
    delivery = Delivery("d", result=1)

    assert message_of(delivery, 10) == delivery.to_json()


def test_delivery_log_of_another_type_is_ignored() -> None:
    """Older task code may use this name for something else."""
    body = b'{"task_id": "d", "result": 1, "log": ["a"]}'

    assert Delivery.from_json(body) == Delivery("d", result=1)
