"""Run a few of the fault scenarios; ``make faults`` runs all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devtools.servers import postgres
from devtools.servers.installed import require
from tests.e2e.commands import FAULTS

if TYPE_CHECKING:
    from tests.e2e.commands import Finished

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2700)]


@pytest.fixture
def installed() -> None:
    """PostgreSQL is installed, or the test ends before it waits for the faults."""
    require(postgres.find_program("initdb"), "postgresql")


@pytest.mark.needs_run("faults")
@pytest.mark.usefixtures("installed")
def test_faults_one_of_each_kind_lose_and_repeat_nothing(
    finished_run: Finished,
) -> None:
    faults = finished_run

    assert faults.status == 0, faults.output[-6000:] + faults.errors[-3000:]
    assert f"{len(FAULTS)} faults, 0 with something amiss." in faults.output
