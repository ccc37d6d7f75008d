# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The last lines of what one call of a handler logs."""

from __future__ import annotations

import re
import threading
from collections import deque
from typing import Callable

#: How many lines are kept, and how many bytes of them in UTF-8.
MAX_LINES, MAX_BYTES = 200, 16 * 1024

#: The longest line, in bytes; the rest of a longer one is left out.
MAX_LINE = 4 * 1024

#: Colours and other terminal sequences, and control characters but the tab.
_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


class LogTail:
    """Keeps the last lines of a log; threads may write to it at once.

    Args:
        hide: Returns a line without its secrets.
    """

    def __init__(self, hide: Callable[[str], str] = str) -> None:
        self._hide = hide
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._added = 0
        self._unfinished = ""
        # A finalizer may log while this thread holds the lock.
        self._lock = threading.RLock()

    def add(self, text: str) -> None:
        """Add whole lines."""
        with self._lock:
            for line in text.splitlines():
                self._append(line)

    def write(self, text: str) -> None:
        """Add what is written to a stream: lines, or a part of a line."""
        with self._lock:
            *lines, rest = (self._unfinished + text).split("\n")
            for line in lines:
                self._append(_last_version(line))
            # What a carriage return overwrites is dropped: a progress bar is one line.
            start = rest.rstrip("\r").rfind("\r") + 1
            self._unfinished = rest[start:][-MAX_BYTES:]

    def end_line(self) -> None:
        with self._lock:
            if self._unfinished:
                self.write("\n")

    def text(self) -> str:
        """Return the last lines that fit; the first line says how many are missing."""
        with self._lock:
            self.end_line()
            kept: deque[str] = deque()
            left = MAX_BYTES
            for line in reversed(self._lines):
                left -= len(line.encode()) + 1
                if left < 0:
                    break
                kept.appendleft(line)
            missing = self._added - len(kept)
        if missing:
            kept.appendleft(f"... {missing} earlier lines are left out ...")
        return "\n".join(kept)

    def _append(self, line: str) -> None:
        self._lines.append(self._clean(line))
        self._added += 1

    def _clean(self, line: str) -> str:
        # The whole line is searched for secrets before it is cut.
        line = _TERMINAL.sub("", self._hide(line)).rstrip()
        # Unpaired surrogates cannot be stored in PostgreSQL.
        data = line.encode("utf-8", "replace")
        if len(data) <= MAX_LINE:
            return data.decode()
        return data[:MAX_LINE].decode("utf-8", "ignore") + " ..."


def _last_version(line: str) -> str:
    """Return what a terminal shows of a line with carriage returns."""
    return line.rstrip("\r").rpartition("\r")[2]
