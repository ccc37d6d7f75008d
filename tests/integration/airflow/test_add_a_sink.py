"""The sink of docs/how-to/add-a-sink.md, installed as a separate package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runqy_provider.errors import Misconfigured
from runqy_provider.sinks import registry
from runqy_provider.sinks.base import Sink
from tests.support.harness import run_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runqy_provider.sinks.base import BoundSink

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "add-a-sink.md"

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


def block(language: str) -> str:
    """Return the first code block of the page in a language."""
    found = re.search(
        rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return found[1]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the page's package, with the files that pip would write."""
    entry = block("toml").splitlines()[1].replace('"', "")
    (tmp_path / "your_package").mkdir()
    (tmp_path / "your_package" / "sinks.py").write_text(block("python"))
    about = tmp_path / "your_package-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: your-package\nVersion: 1\n"
    )
    (about / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{entry}\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.clear_registered()
    yield
    registry.clear_registered()


def test_add_a_sink_page_example_is_short() -> None:
    lines = [line for line in block("python").splitlines() if line.strip()]

    assert len(lines) <= 65


@pytest.mark.usefixtures("package")
def test_foreign_sink_deferred_returns_value(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    run = run_of({"n": 1}, runqy_queue="idle", sink=f"folder://{folder}").execute()
    assert run.state == "deferred"

    delivery_id = run.xcoms["runqy_job"]["delivery_id"]
    (folder / f"{delivery_id}.json").write_text('{"text": "read"}')
    run.resume(run.fire())

    assert run.value == {"text": "read"}


@pytest.mark.usefixtures("package")
def test_foreign_sink_unavailable_enqueues_nothing(
    tmp_path: Path,
) -> None:
    run = run_of(runqy_queue="idle", sink=f"folder://{tmp_path}/missing").execute()

    assert run.state == "failed"
    assert "does not exist" in str(run.error)
    assert "runqy_job" not in run.xcoms


class Unregistered(Sink):
    """A sink whose scheme has no entry point."""

    uri = "unregistered://x"

    @classmethod
    def from_uri(cls, uri: str) -> Unregistered:
        raise NotImplementedError

    def bind(self, context: object) -> BoundSink:
        raise NotImplementedError


def test_foreign_sink_not_registered_is_refused() -> None:
    with pytest.raises(Misconfigured, match="Register the scheme 'unregistered'"):
        registry.sink_from_uri(Unregistered())
