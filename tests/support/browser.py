"""A headless Chromium for tests of pages, and screenshots for the docs."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from devtools.servers.installed import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Locator, Page

#: Where the docs have their screenshots. ``make screenshots`` writes them.
IMAGES = Path(__file__).parents[2] / "docs" / "images"

#: Set to write the screenshots; a test run alone changes no file of the repository.
WRITE_SCREENSHOTS = "RUNQY_SCREENSHOTS"

#: Milliseconds that a page may take on a loaded machine.
TIMEOUT = 60_000

#: Chromium's own requests to other hosts are turned off.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Start a browser, and close it."""
    program = require(shutil.which("chromium"), "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=list(ARGUMENTS)
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def browser_page(
    browser: Browser, width: int = 1400, height: int = 900
) -> Iterator[Page]:
    """Open an empty page that shares no cookies with others, and close it."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(TIMEOUT)
    try:
        yield page
    finally:
        page.close()


def screenshot(shown: Page | Locator, name: str) -> None:
    """Write a screenshot for the docs, if that is wanted."""
    if os.environ.get(WRITE_SCREENSHOTS):
        IMAGES.mkdir(exist_ok=True)
        shown.screenshot(path=IMAGES / f"{name}.png")
