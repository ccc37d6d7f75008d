"""Start the long commands of these tests before all other tests, one after another.

They take minutes, most of which are waiting. So they run beside the other tests. The
tests of this folder come last, and only look at what the commands have done.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import commands

if TYPE_CHECKING:
    from collections.abc import Callable

Runs = dict[str, "Future[Any]"]

RUNS = pytest.StashKey[Runs]()

#: The commands by name, in the order in which they run.
COMMANDS: dict[str, Callable[[], Any]] = {
    "demo": commands.run_demo,
    "demo-SIGKILL": lambda: commands.interrupt_demo("SIGKILL"),
    "demo-SIGINT": lambda: commands.interrupt_demo("SIGINT"),
    "faults": commands.run_faults,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that need a command last."""
    items.sort(key=lambda item: item.get_closest_marker("needs_run") is not None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the commands that the selected tests need."""
    wanted = {
        mark.args[0]
        for item in session.items
        for mark in item.iter_markers("needs_run")
    }
    if not wanted or session.config.option.collectonly:
        return
    runs: Runs = {name: Future() for name in COMMANDS if name in wanted}
    session.config.stash[RUNS] = runs
    # A daemon: an interrupted test run must not wait for them. The commands end with
    # this process, whatever ends it.
    threading.Thread(target=_run_all, args=(runs,), daemon=True).start()


def _run_all(runs: Runs) -> None:
    for name, future in runs.items():
        try:
            future.set_result(COMMANDS[name]())
        except BaseException as error:  # noqa: BLE001 - the test raises it
            future.set_exception(error)


@pytest.fixture
def finished_run(request: pytest.FixtureRequest) -> Any:
    """What the command of this test has returned; waits until it ends."""
    mark = request.node.get_closest_marker("needs_run")
    assert mark is not None
    return request.config.stash[RUNS][mark.args[0]].result()
