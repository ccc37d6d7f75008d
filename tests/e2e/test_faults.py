"""Run a few of the fault scenarios; ``make faults`` runs all of them."""

from __future__ import annotations

import pytest

from devtools.servers import postgres
from devtools.servers.installed import require
from tests.e2e import commands

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2700)]


@pytest.fixture
def installed() -> None:
    """PostgreSQL is installed, or the test ends before it causes the faults."""
    require(postgres.find_program("initdb"), "postgresql")


@pytest.mark.usefixtures("installed")
def test_faults_one_of_each_kind_lose_and_repeat_nothing() -> None:
    faults = commands.run_faults()

    assert faults.status == 0, faults.output[-6000:] + faults.errors[-3000:]
    assert f"{len(commands.FAULTS)} faults, 0 with something amiss." in faults.output
