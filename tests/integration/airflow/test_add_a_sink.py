"""The sink of docs/how-to/add-a-sink.md, installed as a separate package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.errors import JobFailed, Misconfigured
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.models import JobRef
from runqy_provider.settings import load_settings
from runqy_provider.sinks import registry
from runqy_provider.sinks.base import Sink
from tests.support.caches import clear_registered
from tests.support.harness import outcome_of, run_of
from tests.support.stack import make_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runqy_provider.sinks.base import BoundSink
    from tests.support.stack import Gate, Stack

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "add-a-sink.md"

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


def blocks(language: str) -> list[str]:
    """Return the code blocks of the page in a language."""
    found = re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(found) == 2, "one for Airflow and one for the worker"
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's package, and with the files that pip would write."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "your_package").mkdir()
    for name, text in zip(("sinks", "delivery"), blocks("python"), strict=True):
        (folder / "your_package" / f"{name}.py").write_text(text)
    about = folder / "your_package-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: your-package\nVersion: 1\n"
    )
    points = [text.replace("project.entry-points.", "") for text in blocks("toml")]
    (about / "entry_points.txt").write_text("".join(points).replace('"', ""))
    return folder


@pytest.fixture(scope="module")
def stack(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A sandbox whose task code finds the package, and nothing of Airflow's side."""
    code = tmp_path_factory.mktemp("task_code")
    with make_stack(code, {"PYTHONPATH": str(site)}) as stack:
        yield stack


@pytest.fixture
def package(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the package where Airflow runs."""
    monkeypatch.syspath_prepend(site)
    clear_registered()
    yield
    clear_registered()


def test_add_a_sink_page_example_is_short() -> None:
    classes, function = (
        [line for line in text.splitlines() if line.strip()]
        for text in blocks("python")
    )

    assert len(classes) <= 65
    assert len([line for line in classes if line.startswith("class ")]) == 3
    imports = [line for line in classes if line.startswith("from runqy")]
    assert imports == ["from runqy_provider.sinks import ("]
    assert len(function) <= 8
    assert "import runqy" not in blocks("python")[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that workers and Airflow share."""
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("deferrable", [True, False])
def test_foreign_sink_delivered_by_helper_returns_value(
    deferrable: bool, folder: Path
) -> None:
    payload = {"value": {"text": "read"}}
    run = run_of(payload, sink=f"folder://{folder}", deferrable=deferrable)

    assert outcome_of(run) == {"text": "read"}
    assert len(list(folder.iterdir())) == 1


@pytest.mark.usefixtures("package")
def test_foreign_sink_bytes_delivered_by_helper_are_read(folder: Path) -> None:
    run = run_of({"bytes": 5}, sink=f"folder://{folder}")

    reference = outcome_of(run)

    result = RunqyResultHook().read(reference)
    assert (result.bytes(), result.content_type) == (b"xxxxx", "image/png")


@pytest.mark.usefixtures("package")
def test_foreign_sink_failure_delivered_by_helper_fails_task(folder: Path) -> None:
    run = run_of({"error": "no such model"}, sink=f"folder://{folder}")

    with pytest.raises(JobFailed, match="no such model"):
        outcome_of(run)


@pytest.mark.usefixtures("package")
def test_foreign_sink_not_writable_by_helper_reaches_failure_channel(
    folder: Path, gate: Gate
) -> None:
    run = run_of({**gate.closed, "value": 1}, sink=f"folder://{folder}").execute()
    folder.rmdir()
    folder.touch()
    gate.open()

    event = run.fire()
    folder.unlink()
    folder.mkdir()
    run.resume(event)

    assert isinstance(run.error, JobFailed)
    assert "your_package.delivery:deliver" in str(run.error)


@pytest.mark.usefixtures("package")
def test_foreign_sink_written_by_other_code_returns_value(folder: Path) -> None:
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


@pytest.mark.usefixtures("package")
def test_foreign_sink_waits_share_a_waiter_until_the_connection_changes(
    connect: Callable[..., Any], folder: Path
) -> None:
    def waiter_factory() -> object:
        sink = registry.sink_from_uri(f"folder://{folder}")
        bound = sink.bind(load_settings("runqy_default"))
        (target,) = bound.targets(JobRef("d-1", sink.uri))
        return target.waiter_factory

    first = waiter_factory()
    connect()
    second = waiter_factory()
    connect(callback_url="http://elsewhere/runqy")

    assert first == second
    assert hash(first) == hash(second)
    assert waiter_factory() != first


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
