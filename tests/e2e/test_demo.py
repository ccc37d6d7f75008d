"""The demo as a user runs it: real Airflow, a real sandbox, no process left over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devtools.demo.__main__ import EXPECTED

if TYPE_CHECKING:
    from tests.e2e.commands import Finished

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.mark.needs_run("demo")
def test_demo_run_succeeds_and_leaves_no_process(finished_run: Finished) -> None:
    demo = finished_run

    assert demo.status == 0, demo.output[-6000:] + demo.errors[-3000:]
    rows = sum(wanted.count for wanted in EXPECTED)
    assert f"{rows} tasks, 0 not as they should be." in demo.output
    assert "ValueError: recording.silence has nothing to hear" in demo.output
    waited = "tasks of the fan-out waited at once for a runqy worker to start"
    assert waited in demo.output
    assert demo.left == ()


@pytest.mark.needs_run("demo-SIGKILL")
def test_demo_killed_leaves_no_process(finished_run: Finished) -> None:
    assert finished_run.left == ()


@pytest.mark.needs_run("demo-SIGINT")
def test_demo_interrupted_leaves_no_process(finished_run: Finished) -> None:
    assert finished_run.left == ()
