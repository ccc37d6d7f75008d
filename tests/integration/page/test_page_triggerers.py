"""Triggerers that do not run or have no capacity, as Airflow's database has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.trigger import Trigger

from tests.support.triggerers import Triggerers
from tests.support.waiting_tasks import WaitingTasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

pytestmark = pytest.mark.usefixtures("connect")


@pytest.fixture
def triggerers(engine: Engine) -> Iterator[Triggerers]:
    """Triggerers, and three tasks that wait for one."""
    with WaitingTasks("waits_for_triggerer", 3).inserted(engine):
        yield Triggerers(engine)


@pytest.fixture
def problem(get: Callable[..., Any]) -> Callable[[], str]:
    """Return what the page says of triggerers."""
    return lambda: str(get("/api/waits", "vera").json()["triggerer_problem"])


def test_triggerers_none_runs_is_said(
    triggerers: Triggerers, problem: Callable[[], str]
) -> None:
    assert problem().startswith("No triggerer of Airflow runs, so")
    with triggerers.running(3600):
        assert "last heartbeat" in problem()


def test_triggerers_one_of_two_that_runs_is_enough(
    triggerers: Triggerers, problem: Callable[[], str]
) -> None:
    with triggerers.running(0, 3600) as [alive, _]:
        triggerers.assign(alive, age=3600)
        assert problem() == ""


def test_triggerers_without_capacity_are_named(
    triggerers: Triggerers,
    problem: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__TRIGGERER__CAPACITY", "3")
    with triggerers.running(0, 0) as [full, other]:
        triggerers.assign(full)
        assert problem() == "", "the other one has capacity"
        triggerers.assign(other)
        assert problem() == ""
    with triggerers.running(0) as [full]:
        triggerers.assign(full)
        assert "capacity is 3" in problem()


def test_triggerers_task_that_none_takes_is_told_after_a_while(
    triggerers: Triggerers, problem: Callable[[], str]
) -> None:
    with triggerers.running(0, 3600) as [_, dead]:
        triggerers.assign(None, age=1)
        assert problem() == ""
        for owner in (None, dead):
            triggerers.assign(owner, age=300)
            assert "has waited for one for 30" in problem()


@pytest.mark.skipif(not hasattr(Trigger, "queue"), reason="this Airflow has no queues")
def test_triggerers_queue_without_one_is_named(
    triggerers: Triggerers, problem: Callable[[], str]
) -> None:
    with triggerers.running(0):
        triggerers.assign(None, age=300, queue="gpu")
        assert "--queues gpu" in problem()
