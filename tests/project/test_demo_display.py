"""What the demo prints in a terminal, and elsewhere."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from devtools.demo.display import WIDTH, Display, line_of
from devtools.demo.runs import Row

GREEN, RED = "\x1b[32m", "\x1b[1;31m"

ERROR = "ValueError: recording.silence has nothing to hear"

WAITING = Row("runqy_webhook", "transcribe", 1, "deferred")
RIGHT = Row(
    "runqy_combined",
    "render",
    6,
    '{"uri": "' + "x" * 300 + '"}',
    "s3://results sql://results_db/tasks webhook",
    (0.4, 1.4),
    is_right=True,
)
FAILED = Row(
    "runqy_failing", "transcribe", 1, ERROR, "webhook", (2.0, 3.0), is_right=True
)
WRONG = Row("runqy_redis_storage", "classify", 1, "missing", is_right=False)


def last_table(columns: int) -> list[str]:
    """Return the lines that are left in a terminal of so many columns."""
    output = io.StringIO()
    console = Console(
        file=output, force_terminal=True, width=columns, color_system="standard"
    )
    with Display(console) as display:
        display.end([WAITING, RIGHT, FAILED, WRONG])
    # What comes before was erased.
    return output.getvalue().rpartition("\x1b[2K")[2].rstrip().splitlines()[:-1]


@pytest.mark.parametrize("columns", [80, 100, 300])
def test_table_fits_into_the_terminal_and_into_100_columns(columns: int) -> None:
    lines = [
        re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in last_table(columns)
    ]
    names = [line.split()[0] for line in lines if not line.startswith(" ")]

    assert max(len(line) for line in lines) <= min(columns, WIDTH)
    assert names[:5] == ["DAG", "webhook", "combined", "failing", "redis_storage"]


def test_table_row_turns_green_when_its_task_is_right() -> None:
    colours = {
        name: [colour in line for colour in (GREEN, RED)]
        for line in last_table(100)
        for name in ("deferred", "combined", "redis_storage")
        if name in line
    }

    assert colours == {
        "deferred": [False, False],
        "combined": [True, False],
        "redis_storage": [False, True],
    }


def test_paths_of_this_machine_are_left_out() -> None:
    result = '{"uri": "file:///home/me/results/renders/1"}'
    row = Row("runqy_shared_folder", "render", 1, result, "file:///home/me/results")

    assert "/home/me" not in line_of(row)
    assert "file://…/results" in line_of(row)


def test_lines_without_terminal_are_one_per_task_that_has_ended() -> None:
    output = io.StringIO()
    with Display(Console(file=output, width=40)) as display:
        display.show([WAITING, RIGHT, WRONG])
        display.show([FAILED, RIGHT, WRONG])
        assert output.getvalue().count("\n") == 2
        display.end([FAILED, RIGHT, WRONG], "The last line.")
    lines = output.getvalue().splitlines()

    assert [line.partition("runqy_")[2].split(".")[0] for line in lines] == [
        "combined",
        "failing",
        "redis_storage",
        "",
    ]
    assert "s3 + sql + webhook" in lines[0]
    assert lines[0].endswith("xxx ...")
    assert lines[1].endswith(ERROR)
    assert lines[2].startswith("NO")
    assert lines[3] == "The last line."
