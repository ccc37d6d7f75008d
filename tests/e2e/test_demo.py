"""The demo as a user runs it: real Airflow, a real sandbox, no process left over."""

from __future__ import annotations

import pytest

from devtools.demo.examples import EXPECTED
from tests.e2e import commands

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def test_demo_run_succeeds_and_leaves_no_process_when_killed() -> None:
    demo = commands.run_and_kill_demo()

    assert "Ctrl-C stops everything." in demo.output, demo.output[-9000:]
    rows = sum(wanted.count for wanted in EXPECTED)
    assert f"{rows} tasks, 0 not as they should be." in demo.output
    assert "ValueError: recording.silence has nothing to hear" in demo.output
    waited = "tasks of the fan-out waited at once for a runqy worker to start"
    assert waited in demo.output
    assert demo.left == ()
