# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Capture what a handler logs and writes to stderr while it runs.

Nothing is added to the root logger: with a handler there, ``logging.basicConfig()`` in
task code would do nothing. Instead each log record is noted when it is made, and stderr
is wrapped. All this is undone after the call, and all output still goes where it went.

What does not pass through ``sys.stderr`` is not captured: the output of child processes
and of C code. File descriptor 2 stays as it is, because nothing can take its place
safely. With a pipe or a file there, the last words of a process that is killed or
crashes would be lost, and so would the output of children that outlive the call; a full
pipe would block C code that holds Python's lock.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import logging
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runqy_delivery.log_tail import LogTail

_lock = threading.RLock()

#: The tails of the calls that run now.
_running: list[LogTail] = []

#: Restores what ``_install`` changed; it is called when no call runs any more.
_uninstall: list[Callable[[], None]] = []

_tail: contextvars.ContextVar[LogTail | None] = contextvars.ContextVar(
    "runqy_delivery_log_tail", default=None
)


@contextlib.contextmanager
def capturing(tail: LogTail | None) -> Iterator[None]:
    """Within this context, write to ``tail`` what is logged and written to stderr.

    ``print`` is included in a process of runqy, where ``sys.stdout`` is stderr. Threads
    that the handler starts are included, unless several calls run at once.

    Args:
        tail: Where to write it; None captures nothing.
    """
    if tail is None:
        yield
        return
    with _lock:
        if not _running:
            _uninstall.append(_install())
        _running.append(tail)
    token = _tail.set(tail)
    try:
        yield
    finally:
        _tail.reset(token)
        with _lock:
            _running.remove(tail)
            if not _running:
                _uninstall.pop()()


def _current() -> LogTail | None:
    """Return the tail of the call that this code belongs to."""
    tail = _tail.get()
    if tail is not None:
        return tail
    # A thread that the handler started has a context of its own.
    running = _running[:]
    return running[0] if len(running) == 1 else None


def _install() -> Callable[[], None]:
    """Capture log records and stderr; return the function that ends this."""
    is_on = True
    make_record = logging.getLogRecordFactory()

    def make_noted_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        # makeLogRecord() makes a record without a name, and fills it later.
        if is_on and record.name is not None:
            _note(record)
        return record

    stdout, stderr = sys.stdout, sys.stderr
    tee: Any = None if stderr is None else _Tee(stderr)
    logging.setLogRecordFactory(make_noted_record)
    sys.stderr = tee
    if stdout is stderr:
        sys.stdout = tee

    def undo() -> None:
        nonlocal is_on
        is_on = False
        # What task code replaced itself meanwhile is kept.
        if logging.getLogRecordFactory() is make_noted_record:
            logging.setLogRecordFactory(make_record)
        if sys.stderr is tee:
            sys.stderr = stderr
        if sys.stdout is tee:
            sys.stdout = stdout

    return undo


def _note(record: logging.LogRecord) -> None:
    tail = _current()
    if tail is None:
        return
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - arguments of task code may raise anything
        message = f"(a message of {record.filename}:{record.lineno} without its text)"
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
    tail.add(f"{at} {record.levelname} {record.name}: {message}")
    if record.exc_info and record.exc_info[0] is not None:
        tail.add("".join(traceback.format_exception(*record.exc_info)))


class _Tee:
    """A text stream that also writes to the tail of the current call.

    It works like the stream when no call runs: a handler of ``logging`` that task code
    made during a call keeps it.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        written = self._stream.write(text)
        tail = _current()
        if tail is not None and not _is_called_by_logging():
            tail.write(text)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    @property
    def buffer(self) -> Any:
        """The binary stream below, which task code may write to as well."""
        return _BinaryTee(self._stream.buffer)


class _BinaryTee(_Tee):
    """The binary stream of a text stream; it also writes to the tail."""

    def write(self, data: Any) -> Any:
        written = self._stream.write(data)
        tail = _current()
        if tail is not None and not _is_called_by_logging():
            tail.write(bytes(data).decode("utf-8", "replace"))
        return written


def _is_called_by_logging() -> bool:
    """True if a handler of ``logging`` writes a record, which is noted already."""
    frame = inspect.currentframe()
    for _ in range(2):  # this function, and the method that calls it
        frame = None if frame is None else frame.f_back
    return frame is not None and frame.f_globals.get("__name__") == "logging"
