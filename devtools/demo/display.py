# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What the demo prints: a live table in a terminal, and lines anywhere else."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

    from devtools.demo.runs import Row

#: The most columns that the table uses, however wide the terminal is.
WIDTH = 100

#: The most characters of a result in a line.
LONGEST_RESULT = 60

#: What the names of all examples begin with; the table leaves it out.
PREFIX = "runqy_"

STYLES = {None: "dim", True: "green", False: "bold red"}
MARKS = {None: "", True: "ok", False: "NO"}


class Display:
    """Prints messages, and how far each task is, until its context ends.

    Args:
        console: Where to print; by default the standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console()
        if console.is_terminal:
            console.width = min(console.width, WIDTH)
        self._console = console
        self._live = Live(console=console, auto_refresh=False)
        self._began = time.monotonic()
        self._ended: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def say(self, message: str) -> None:
        """Print what happens, with the seconds since the start."""
        self.print(f"[{time.monotonic() - self._began:4.0f} s] {message}")

    def print(self, *lines: str, style: str = "") -> None:
        """Print lines as they are, above the table if there is one."""
        for line in lines:
            # Out at once: a pipe would keep it until the end.
            self._console.print(Text(line, style), soft_wrap=True)
            self._console.file.flush()

    def show(self, rows: Sequence[Row]) -> None:
        """Update the table, or print a line for each task that is right since."""
        if self._console.is_terminal:
            self._live.start()
            self._live.update(table_of(rows), refresh=True)
            return
        for row in rows:
            if row.is_right and (row.dag_id, row.task_id) not in self._ended:
                self._ended.add((row.dag_id, row.task_id))
                self.say(line_of(row))

    def end(self, rows: Sequence[Row], *lines: str) -> None:
        """Show all tasks for the last time, and print lines below them."""
        self.show(rows)
        self._live.stop()
        if not self._console.is_terminal:
            self.print(*(line_of(row) for row in rows if not row.is_right))
        self.print(*lines)


def table_of(rows: Sequence[Row]) -> Table:
    """Return one line per task, so that it fits into a terminal of 24 lines."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(f"DAG {PREFIX}…", no_wrap=True)
    table.add_column("task", no_wrap=True)
    table.add_column("sink", no_wrap=True)
    # From enqueueing to the delivery, and to the end of the task.
    table.add_column("seconds", no_wrap=True)
    # The only column that is cut or wrapped if the terminal is too small.
    table.add_column("result")
    table.add_column("", no_wrap=True, min_width=2)
    for row in rows:
        table.add_row(
            row.dag_id.removeprefix(PREFIX),
            _task(row),
            _sink(row),
            _seconds(row),
            _result(row),
            MARKS[row.is_right],
            style=STYLES[row.is_right],
        )
    return table


def line_of(row: Row) -> str:
    """Return a task as one line."""
    name = f"{row.dag_id}.{_task(row)}"
    text = _short(row.text)
    if _is_result(row) and len(text) > LONGEST_RESULT:
        text = f"{text[:LONGEST_RESULT]} ..."
    mark = MARKS[row.is_right] or ".."
    return f"{mark}  {name:32} {_sink(row):22} {_seconds(row):13} {text}"


def _task(row: Row) -> str:
    return row.task_id if row.count == 1 else f"{row.task_id} ({row.count})"


def _sink(row: Row) -> str:
    """Return a short name: several sinks by their schemes, and a folder by its name."""
    sinks = row.sink.split()
    if len(sinks) > 1:
        return " + ".join(sink.partition("://")[0] for sink in sinks)
    return _short(row.sink)


def _short(text: str) -> str:
    """Leave out of paths what differs between machines."""
    return re.sub(r'file:///[^"]*/', "file://…/", text)


def _result(row: Row) -> Text:
    """Return a result as one line, and an error in full."""
    return Text(_short(row.text), overflow="ellipsis", no_wrap=_is_result(row))


def _is_result(row: Row) -> bool:
    return row.text.startswith(("{", "[", '"'))


def _seconds(row: Row) -> str:
    return " → ".join(f"{each:.1f}" for each in row.seconds or ())
