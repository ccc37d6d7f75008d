"""The demo as a user runs it: real Airflow, a real sandbox, no process left over."""

from __future__ import annotations

import io
import os
import re

import pytest
from rich.console import Console
from rich.text import Text

from devtools.demo.examples import EXPECTED
from tests.e2e import commands
from tests.support.browser import (
    WRITE_SCREENSHOTS,
    browser_page,
    running_browser,
    screenshot,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def test_demo_run_succeeds_and_leaves_no_process_when_killed() -> None:
    demo = commands.run_and_kill_demo()

    # Each new table erases the one before.
    last = demo.output.rpartition("\x1b[2K")[2].replace("\r", "")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last)
    shown, *_ = text.partition("\n\n")
    assert "Ctrl-C stops everything." in text, demo.output[-9000:]
    count = sum(wanted.count for wanted in EXPECTED)
    assert f"{count} tasks, 0 not as they should be." in shown
    assert "ValueError: recording.silence" in shown
    assert "tasks of the fan-out waited at once for a runqy worker to start" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert demo.left == ()
    if os.environ.get(WRITE_SCREENSHOTS):
        take_picture(last.partition("\n\n")[0])


def take_picture(shown: str) -> None:
    """Write what a terminal shows as a picture for the docs."""
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(Text.from_ansi(shown))
    with running_browser() as browser, browser_page(browser) as page:
        page.set_content(console.export_svg(title="make demo"))
        screenshot(page.locator("svg").first, "demo")
