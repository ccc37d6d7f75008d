"""What a handler logs is captured for its delivery, and goes where it went before."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import json
import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from runqy_delivery import delivers
from runqy_delivery.log_capture import capturing
from runqy_delivery.log_tail import LogTail
from tests.delivery.helpers import s3_payload, webhook_payload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.delivery.helpers import HttpServer

TIMEOUT = 20

log = logging.getLogger("task_code")


class TooDark(Exception):
    """An error of a handler."""


def delivery_of(server: HttpServer, handle: Any, **options: Any) -> dict[str, Any]:
    """Run a handler, and return the delivery that the server received last."""
    decorate: Any = delivers(**options)
    decorate(handle)(webhook_payload(server))
    delivery: dict[str, Any] = server.requests[-1].json()
    return delivery


def log_and_fail(_payload: Any) -> None:
    log.warning("loading %s", "model")
    raise TooDark


def log_and_succeed(_payload: Any) -> int:
    log.warning("loading %s", "model")
    return 1


@pytest.mark.parametrize(
    ("options", "handle", "is_sent"),
    [
        ({}, log_and_fail, True),
        ({}, log_and_succeed, False),
        ({"log": "failures"}, log_and_fail, True),
        ({"log": "failures"}, log_and_succeed, False),
        ({"log": "always"}, log_and_fail, True),
        ({"log": "always"}, log_and_succeed, True),
        ({"log": "never"}, log_and_fail, False),
        ({"log": "never"}, log_and_succeed, False),
    ],
)
def test_delivers_log_is_sent_when_it_is_asked_for(
    server: HttpServer, options: dict[str, Any], handle: Any, *, is_sent: bool
) -> None:
    delivery = delivery_of(server, handle, **options)

    assert ("log" in delivery) is is_sent
    if is_sent:
        assert delivery["log"].endswith(" WARNING task_code: loading model")


def test_delivers_log_has_records_tracebacks_and_stderr_in_order(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())

    def handle(_payload: Any) -> None:
        sys.stderr.write("first\n")
        try:
            log_and_fail({})
        except TooDark:
            log.exception("second")
        print("third", file=sys.stderr)  # noqa: T201 - task code prints
        sys.stderr.writelines(["fou", "rth"])
        raise ValueError

    lines = delivery_of(server, handle)["log"].split("\n")

    assert lines[0] == "first"
    assert lines[2].endswith("ERROR task_code: second")
    assert "Traceback" in lines[3]
    assert lines[-2:] == ["third", "fourth"]


def test_delivers_message_that_cannot_be_formatted_is_noted(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)

    class Broken:
        def __str__(self) -> str:
            raise ZeroDivisionError

    def handle(_payload: Any) -> None:
        log.warning("%s", Broken())
        raise TooDark

    assert "without its text" in delivery_of(server, handle)["log"]


def test_delivers_log_of_task_code_has_no_secrets_of_the_request(
    server: HttpServer,
) -> None:
    url = webhook_payload(server)["webhook_url"].replace("SECRET", "S3CRET-TOKEN")

    def handle(_payload: Any) -> None:
        log.warning("posting to %s", url)
        raise TooDark

    delivers(handle)({**webhook_payload(server), "webhook_url": url})
    (post,) = server.requests

    assert "S3CRET-TOKEN" not in post.body.decode()
    assert "/deliveries/d-1?***" in post.json()["log"]


def test_delivers_log_is_in_notification_and_not_in_object(server: HttpServer) -> None:
    delivers(log="always")(log_and_succeed)(s3_payload(server, webhook=True))

    put, post = server.requests
    assert put.body == b"1"
    assert "loading model" in post.json()["log"]


def test_delivers_log_of_failure_is_in_failed_object(server: HttpServer) -> None:
    delivers(log_and_fail)(s3_payload(server, webhook=False))

    (put,) = server.requests
    assert put.path.startswith("/results/renders/d-1.failed.json")
    assert "loading model" in put.json()["log"]


def test_delivers_log_never_makes_a_result_too_large(server: HttpServer) -> None:
    def handle(_payload: Any) -> str:
        for number in range(100):
            log.warning("%d: %s", number, "y" * 100)
        return "x" * 2000

    delivers(log="always")(handle)(webhook_payload(server, max_bytes=4000))
    (post,) = server.requests

    assert len(post.body) <= 4000
    assert post.json()["result"] == "x" * 2000
    assert post.json()["log"].endswith("99: " + "y" * 100)


def test_delivers_redis_storage_failure_has_log(server: HttpServer) -> None:
    payload = webhook_payload(server, sink="redis_storage")

    failure = delivers(log_and_fail)(payload)

    assert failure["status"] == "failed"
    assert "loading model" in failure["log"]


def test_delivers_redis_storage_result_is_the_value_itself(server: HttpServer) -> None:
    payload = webhook_payload(server, sink="redis_storage")

    def handle(_payload: Any) -> dict[str, int]:
        log.warning("loading")
        return {"a": 1}

    assert delivers(log="always")(handle)(payload) == {"a": 1}


def test_delivers_async_handler_and_its_threads_are_captured(
    server: HttpServer,
) -> None:
    async def handle(_payload: Any) -> None:
        log.warning("in the task")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, log.warning, "in the executor")
        thread = threading.Thread(target=log.warning, args=("in a thread",))
        thread.start()
        thread.join(TIMEOUT)
        raise TooDark

    text = delivery_of(server, handle)["log"]

    for where in ("in the task", "in the executor", "in a thread"):
        assert where in text


def test_capturing_concurrent_calls_keep_their_logs_apart() -> None:
    both_run = threading.Barrier(2, timeout=TIMEOUT)
    tails = [LogTail(), LogTail()]

    def run(number: int) -> None:
        with capturing(tails[number]):
            both_run.wait()
            log.warning("call %d", number)
            sys.stderr.write(f"stderr {number}\n")
            both_run.wait()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)

    for number, tail in enumerate(tails):
        first, second = tail.text().split("\n")
        assert first.endswith(f"call {number}")
        assert second == f"stderr {number}"


@contextlib.contextmanager
def root_without_handlers() -> Iterator[logging.Logger]:
    """The root logger as it is in a process that has not set up logging."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        yield root
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def test_capturing_leaves_basic_config_to_task_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    tail = LogTail()

    with root_without_handlers():
        with capturing(tail):
            logging.basicConfig(level=logging.INFO, format="own format: %(message)s")
            logging.getLogger("a").info("one")
        logging.getLogger("a").info("after the call")

    assert stream.getvalue() == "own format: one\nown format: after the call\n"
    assert tail.text().count("\n") == 0
    assert tail.text().endswith("INFO a: one")


def test_capturing_warning_without_handlers_still_reaches_stderr(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    tail = LogTail()

    with root_without_handlers(), capturing(tail):
        logging.getLogger("a").warning("careful")

    assert stream.getvalue() == "careful\n"
    assert tail.text().endswith("WARNING a: careful")
    assert tail.text().count("careful") == 1


def test_capturing_is_undone_after_an_error() -> None:
    factory, stdout, stderr = logging.getLogRecordFactory(), sys.stdout, sys.stderr

    with pytest.raises(TooDark), capturing(LogTail()):
        log_and_fail({})

    assert logging.getLogRecordFactory() is factory
    assert (sys.stdout, sys.stderr) == (stdout, stderr)


def test_capturing_keeps_what_task_code_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    before = logging.getLogRecordFactory()
    own_stream, tails = io.StringIO(), [LogTail(), LogTail()]
    try:
        with capturing(tails[0]):
            own = functools.partial(logging.getLogRecordFactory())
            logging.setLogRecordFactory(own)
            sys.stderr = own_stream
        assert logging.getLogRecordFactory() is own
        assert sys.stderr is own_stream
        with capturing(tails[1]):
            log.warning("once")
        assert logging.getLogRecordFactory() is own
    finally:
        logging.setLogRecordFactory(before)

    assert tails[0].text() == ""
    assert tails[1].text().count("once") == 1


def test_capturing_wraps_stdout_only_where_it_is_stderr(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """runqy_python makes sys.stdout the same as sys.stderr, so that print is safe."""
    stream, protocol = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", protocol)
    apart, same = LogTail(), LogTail()

    with capturing(apart):
        print("to stdout")  # noqa: T201 - task code prints
    monkeypatch.setattr(sys, "stdout", stream)
    with capturing(same):
        print("to stderr")  # noqa: T201 - task code prints
        assert stream.getvalue() == "to stderr\n"

    assert (apart.text(), same.text()) == ("", "to stderr")
    assert protocol.getvalue() == "to stdout\n"


def test_capturing_without_stderr_captures_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    tail = LogTail()

    with capturing(tail):
        log.warning("no console")

    assert tail.text().endswith("no console")


def test_capturing_make_log_record_is_not_noted() -> None:
    """A record from another process is made empty, and filled later."""
    tail = LogTail()
    with capturing(tail):
        logging.makeLogRecord({"name": "other", "msg": "from a queue"})

    assert tail.text() == ""


def failing_command(directory: Path, size: int = 0) -> list[str]:
    """Return a command that writes to stdout and stderr, and fails."""
    code = directory / "command.py"
    code.write_text(
        "import sys\n"
        f"print('o' * {size} + 'frames: 12')\n"
        f"print('e' * {size}, file=sys.stderr)\n"
        "print('10%\\r20%\\r30%', file=sys.stderr)\n"
        "sys.exit('no such codec')\n"
    )
    return [sys.executable, str(code)]


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("is_cause", [True, False])
def test_delivers_output_of_failed_command_is_in_log(
    server: HttpServer, tmp_path: Path, *, text: bool, is_cause: bool
) -> None:
    def handle(_payload: Any) -> None:
        command = failing_command(tmp_path)
        sys.stderr.write("a line without an end")
        try:
            subprocess.run(command, check=True, capture_output=True, text=text)
        except subprocess.CalledProcessError as error:
            if is_cause:
                raise TooDark from error
            raise

    lines = delivery_of(server, handle)["log"].split("\n")

    assert lines[0] == "a line without an end"
    assert "frames: 12" in lines
    assert lines[-2:] == ["30%", "no such codec"]


def test_delivers_long_output_of_failed_command_is_cut_at_a_line(
    server: HttpServer, tmp_path: Path
) -> None:
    def handle(_payload: Any) -> None:
        command = failing_command(tmp_path, size=100_000)
        subprocess.run(command, check=True, capture_output=True)

    text = delivery_of(server, handle)["log"]

    assert text.endswith("no such codec")
    assert "ee" not in text


def test_delivers_output_of_failed_command_has_no_secrets(
    server: HttpServer,
) -> None:
    url = webhook_payload(server)["webhook_url"]

    def handle(_payload: Any) -> None:
        raise subprocess.CalledProcessError(1, ["curl"], b"", f"at {url}".encode())

    assert "SECRET" not in delivery_of(server, handle)["log"]


def test_delivers_error_whose_output_cannot_be_read_is_delivered(
    server: HttpServer,
) -> None:
    class Odd(Exception):
        stdout = 1

        @property
        def stderr(self) -> str:
            raise ZeroDivisionError

    def handle(_payload: Any) -> None:
        raise Odd

    assert delivery_of(server, handle)["error"]["type"] == "Odd"


def test_capturing_binary_stream_of_stderr_is_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="utf-8"))
    tail = LogTail()

    with capturing(tail):
        sys.stderr.buffer.write("größer\n".encode())
        own = io.TextIOWrapper(sys.stderr.buffer, encoding="utf-8")
        own.write("own\n")
        own.flush()
        own.detach()
        kept = sys.stderr.buffer
    kept.write(b"after the call\n")

    assert tail.text() == "größer\nown"
    assert raw.getvalue().decode() == "größer\nown\nafter the call\n"


def test_delivers_output_past_sys_stderr_is_in_worker_log_only(
    server: HttpServer,
) -> None:
    """A child process and ``os.write`` are not captured, and not disturbed either."""
    code = (
        "import os, subprocess, sys\n"
        "from runqy_delivery import delivers\n"
        "@delivers\n"
        "def handle(payload):\n"
        "    subprocess.run(['sh', '-c', 'echo child >&2'], check=True)\n"
        "    os.write(2, b'low level\\n')\n"
        "    print('captured', file=sys.stderr)\n"
        "    raise ValueError\n"
        f"handle({webhook_payload(server)!r})\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT,
    )

    said = done.stderr.split("\n")
    assert {"child", "low level", "captured"} <= set(said)
    assert done.stdout == ""
    assert server.requests[0].json()["log"] == "captured"


def test_delivers_log_in_task_process_has_prints(server: HttpServer) -> None:
    """The whole way, as runqy_python runs a handler: prints go to stderr."""
    pytest.importorskip("runqy_python")
    code = (
        "from runqy_delivery import delivers\n"
        "from runqy_python import run_once, task\n"
        "@task\n"
        "@delivers(log='always')\n"
        "def handle(payload):\n"
        "    print('printed')\n"
        "    return 1\n"
        "run_once()\n"
    )
    job = {"task_id": "t", "payload": webhook_payload(server)}

    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(job) + "\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT,
    )

    assert "printed" in done.stderr
    assert "printed" not in done.stdout
    assert server.requests[0].json()["log"] == "printed"
