"""A few of the faults, caused for real; ``make faults`` has all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runqy_sandbox.process.watchdog import guarded

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2700)]

SINKS = ("--sinks", "webhook")

#: One of each kind: a process, a store, a worker, a sender, task code, a user.
FAULTS = (
    "triggerer-killed-midway,redis-away,redis-failover,worker-killed,thrice,silent,"
    "cleared"
)


def test_nothing_is_lost_nothing_hangs_nothing_is_enqueued_twice() -> None:
    from devtools.servers.installed import require
    from devtools.servers.postgres import _program

    require(_program("initdb"), "postgresql")
    command = [
        sys.executable,
        "-m",
        "devtools.faults",
        "--jobs",
        "6",
        "--only",
        FAULTS,
        *SINKS,
    ]
    with guarded(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        said, complained = running.communicate()

    assert running.returncode == 0, said[-6000:] + complained[-3000:]
    assert f"{len(FAULTS.split(','))} faults, 0 with something amiss." in said
