"""The site is built without a warning, and its pages load nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from tests.support.doc_blocks import ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: What a browser loads by itself, by tag; of links only some relations.
LOADS = {
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "link": "href",
    "object": "data",
    "script": "src",
    "source": "src",
    "video": "src",
}
NOT_LOADED = {"canonical", "next", "prev", "edit"}


class _Loads(HTMLParser):
    """Collects the addresses that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        address = given.get(LOADS.get(tag, ""))
        if address and given.get("rel") not in NOT_LOADED:
            self.addresses.append(address)


@pytest.mark.timeout(300)
def test_site_is_built_strictly_and_loads_only_its_own_files(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        # Of a repository, the theme's script asks GitHub for details.
        assert 'data-md-component="source"' not in page.read_text()
        parser = _Loads()
        parser.feed(page.read_text())
        assert parser.addresses
        assert not [each for each in parser.addresses if _is_elsewhere(each)], page
    for style in tmp_path.rglob("*.css"):
        addresses = re.findall(r"(?:url\(|@import )['\"]?([^'\")]+)", style.read_text())
        assert not [each for each in addresses if _is_elsewhere(each)], style


def _is_elsewhere(address: str) -> bool:
    return address.startswith(("http:", "https:", "//"))
