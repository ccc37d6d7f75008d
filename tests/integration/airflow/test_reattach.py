"""A retry finds the job of the attempt before; a cleared task starts anew."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from runqy_provider.errors import (
    DeliveryTimeout,
    JobFailed,
    NotThere,
    ServerUnavailable,
    SinkUnavailable,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.jobs.attempt import ATTEMPT_KEY
from runqy_sandbox.process.net import free_port
from tests.support.harness import Run, outcome_of, run_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.stack import World

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


def job_of(run: Run) -> str:
    return str(run.xcoms["runqy_job"]["job_id"])


def jobs_in(world: World, queue: str) -> int:
    with Redis.from_url(world.sandbox.redis_url) as redis:
        return len(redis.keys(f"asynq:{{{queue}}}:t:*"))


def deliver(run: Run, **fields: Any) -> None:
    with RunqyHook() as hook:
        payload = hook.get_job(job_of(run)).payload
    body = {"task_id": payload["task_id"], **fields}
    httpx.post(payload["webhook_url"], json=body).raise_for_status()


def idle_run(**arguments: Any) -> Run:
    run = run_of({"n": time.time_ns()}, "idle", **arguments).execute()
    assert run.state == "deferred"
    return run


def test_a_retry_waits_for_the_job_that_is_there() -> None:
    first = idle_run()
    second = first.retried().execute()
    deliver(second, result=5)

    assert job_of(second) == job_of(first)
    assert second.resume(second.fire()).value == 5


def test_a_retry_takes_a_result_that_nobody_read(world: World) -> None:
    first = idle_run()
    deliver(first, result=[1, 2])
    with Redis.from_url(world.sandbox.redis_url) as redis:
        redis.delete(f"asynq:{{idle.default}}:t:{job_of(first)}")  # long forgotten
    before = jobs_in(world, "idle.default")
    second = first.retried().execute()

    assert (second.state, second.value) == ("success", [1, 2])
    assert jobs_in(world, "idle.default") == before


def test_a_retry_of_a_failed_job_enqueues_anew() -> None:
    run = run_of({"error": "too dark"})
    with pytest.raises(JobFailed):
        outcome_of(run)
    again = run.retried()
    with pytest.raises(JobFailed):
        outcome_of(again)

    assert job_of(again) != job_of(run)


def test_a_retry_of_a_job_that_is_gone_enqueues_anew(world: World) -> None:
    first = idle_run()
    with Redis.from_url(world.sandbox.redis_url) as redis:
        redis.delete(f"asynq:{{idle.default}}:t:{job_of(first)}")
    second = first.retried().execute()

    assert second.state == "deferred"
    assert job_of(second) != job_of(first)


def test_a_cleared_task_enqueues_anew(world: World) -> None:
    first = idle_run()
    second = first.retried(is_cleared=True).execute()
    assert job_of(second) != job_of(first)

    done = run_of({"value": 3})
    assert outcome_of(done) == 3
    again = done.retried(is_cleared=True)
    assert outcome_of(again) == 3
    assert job_of(again) != job_of(done)


def test_a_retry_that_asks_for_other_work_enqueues_that(world: World) -> None:
    first = idle_run()
    other = dataclasses.replace(first.retried(), task=run_of({"n": 1}, "idle").task)
    other.execute()

    assert job_of(other) != job_of(first)
    with Redis.from_url(world.sandbox.redis_url) as redis:
        # It had not begun, and nobody waits for it any more.
        assert not redis.exists(f"asynq:{{idle.default}}:t:{job_of(first)}")


def test_reattachment_can_be_turned_off() -> None:
    first = idle_run(reattach=False)
    assert job_of(first.retried().execute()) != job_of(first)


def test_a_worker_that_died_before_it_heard_the_jobs_id_leaves_no_orphan(
    world: World,
) -> None:
    first = idle_run()
    first.store[ATTEMPT_KEY]["job_id"] = None  # as it stood before the answer came
    before = jobs_in(world, "idle.default")
    second = first.retried().execute()

    assert job_of(second) == job_of(first)
    assert jobs_in(world, "idle.default") == before


def test_a_result_is_taken_though_nobody_can_tell_the_jobs_id(
    connect: Callable[..., Any], world: World
) -> None:
    first = idle_run()
    deliver(first, result=5)
    first.store[ATTEMPT_KEY]["job_id"] = None
    connect(without=("runqy_redis_conn_id",))
    before = jobs_in(world, "idle.default")
    second = first.retried().execute()

    assert (second.state, second.value) == ("success", 5)
    assert jobs_in(world, "idle.default") == before


def test_a_worker_that_died_before_it_asked_is_followed_by_one_that_does(
    world: World,
) -> None:
    first = idle_run()
    first.store[ATTEMPT_KEY]["job_id"] = None
    with Redis.from_url(world.sandbox.redis_url) as redis:
        key = f"asynq:{{idle.default}}:t:{job_of(first)}"
        redis.delete(key)
        redis.lrem("asynq:{idle.default}:pending", 0, job_of(first))
    second = first.retried().execute()

    assert second.state == "deferred"
    assert job_of(second) != job_of(first)


def test_nothing_is_enqueued_while_runqy_cannot_say(
    connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    first = idle_run()
    monkeypatch.setattr(
        "runqy_provider.hooks.runqy.RunqyHook.__init__.__defaults__",
        ("runqy_default", 0.5),
        raising=False,
    )
    before = jobs_in(world, "idle.default")
    connect(fields={"host": f"http://127.0.0.1:{free_port()}"})
    second = first.retried().execute()

    with pytest.raises(ServerUnavailable):
        raise second.error
    connect()
    third = second.retried().execute()
    assert job_of(third) == job_of(first)
    assert jobs_in(world, "idle.default") == before


def test_what_another_version_left_is_not_misread() -> None:
    run = run_of({}, "idle")
    run.store[ATTEMPT_KEY] = {"something": "else"}
    assert run.execute().state == "deferred"


def test_a_retry_runs_a_job_again_whose_failure_runqy_stored() -> None:
    """For runqy the job has completed: its result says that it failed."""
    run = run_of({"error": "too dark"}, "stored", sink="redis_storage")
    with pytest.raises(JobFailed):
        outcome_of(run)
    again = run.retried()
    with pytest.raises(JobFailed):
        outcome_of(again)

    assert job_of(again) != job_of(run)


def test_a_retry_runs_a_job_again_whose_result_cannot_be_read() -> None:
    run = run_of({"n": time.time_ns()}, "idle", sink="s3://results/poison").execute()
    deliver(run, result_url="s3://results/poison/nothing-here")
    with pytest.raises(NotThere):
        raise run.resume(run.fire()).error
    again = run.retried().execute()

    assert again.state == "deferred"
    assert job_of(again) != job_of(run)


def test_a_job_that_may_not_deliver_any_more_is_not_waited_for(world: World) -> None:
    first = idle_run()
    first.store[ATTEMPT_KEY]["expires"] = time.time() - 1
    second = first.retried().execute()

    assert second.state == "deferred"
    assert job_of(second) != job_of(first)
    with Redis.from_url(world.sandbox.redis_url) as redis:
        assert not redis.exists(f"asynq:{{idle.default}}:t:{job_of(first)}")


def test_a_clear_is_one_though_the_retries_were_lowered() -> None:
    """What a clear adds to Airflow's max_tries is what the change took away."""
    first = run_of({"value": 3}, retries=3)
    first.max_tries = 3
    assert outcome_of(first) == 3
    cleared = dataclasses.replace(
        first.retried(), task=run_of({"value": 3}, retries=2).task, max_tries=3
    )
    assert outcome_of(cleared) == 3

    assert job_of(cleared) != job_of(first)


def test_a_worker_that_dies_after_it_read_the_result_leaves_it_to_the_next() -> None:
    first = run_of({"value": 3})
    assert outcome_of(first) == 3
    again = first.retried()

    assert outcome_of(again) == 3
    assert job_of(again) == job_of(first)


@pytest.mark.parametrize("sink", ["webhook", "s3://results/again"])
def test_a_run_that_is_made_anew_has_results_of_its_own(sink: str) -> None:
    """Same DAG, same run_id, same task, first attempt: as after a run was deleted."""
    first = run_of({"value": "old"}, sink=sink)
    assert outcome_of(first) == "old"
    anew = run_of({"value": "new"}, sink=sink)
    anew.run_id = first.run_id

    assert outcome_of(anew) == "new"


@pytest.fixture
def inbox_away(connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the Redis of the inbox be away, and come back; runqy's own stays."""

    def away(*, is_away: bool = True) -> None:
        if not is_away:
            connect()
            return
        monkeypatch.setenv("AIRFLOW_CONN_GONE", f"redis://127.0.0.1:{free_port()}")
        connect(redis_conn_id="gone")

    return away


def test_what_cannot_be_looked_at_is_not_taken_for_nothing(
    inbox_away: Any, world: World
) -> None:
    """The job has ended, and its result lies where nobody can look just now."""
    first = idle_run()
    deliver(first, result=[1, 2])
    with Redis.from_url(world.sandbox.redis_url) as redis:
        redis.delete(f"asynq:{{idle.default}}:t:{job_of(first)}")
    inbox_away()
    second = first.retried().execute()
    with pytest.raises(SinkUnavailable, match="nothing was enqueued"):
        raise second.error
    assert second.store[ATTEMPT_KEY]["job_id"] == job_of(first)

    inbox_away(is_away=False)
    third = second.retried().execute()
    assert (third.state, third.value) == ("success", [1, 2])


def test_nor_where_the_jobs_id_is_not_known(inbox_away: Any, world: World) -> None:
    first = idle_run()
    deliver(first, result=[1, 2])
    with Redis.from_url(world.sandbox.redis_url) as redis:
        redis.delete(f"asynq:{{idle.default}}:t:{job_of(first)}")
    first.store[ATTEMPT_KEY]["job_id"] = None
    inbox_away()
    second = first.retried().execute()
    with pytest.raises(SinkUnavailable, match="nothing was enqueued"):
        raise second.error


def test_a_place_that_is_missing_for_a_moment_gives_no_job_up(tmp_path: Path) -> None:
    """As a share that is not mounted: the next try waits for the job that runs."""
    folder = tmp_path / "share"
    folder.mkdir()
    first = idle_run(sink=f"file://{folder}")
    folder.rmdir()
    with pytest.raises(NotThere):
        raise first.resume(first.fire()).error
    folder.mkdir()
    second = first.retried().execute()

    assert second.state == "deferred"
    assert job_of(second) == job_of(first)


@pytest.mark.parametrize("how", ["cleared", "given up", "reattach off"])
def test_a_job_that_is_waited_for_no_more_does_not_run_beside_the_new_one(
    how: str, world: World
) -> None:
    first = idle_run(reattach=how != "reattach off")
    first.store[ATTEMPT_KEY]["is_given_up"] = how == "given up"
    second = first.retried(is_cleared=how == "cleared").execute()

    assert job_of(second) != job_of(first)
    with Redis.from_url(world.sandbox.redis_url) as redis:
        assert not redis.exists(f"asynq:{{idle.default}}:t:{job_of(first)}")


def test_it_is_left_where_the_user_wants_it_so(world: World) -> None:
    first = idle_run(delete_on_kill=False)
    first.retried(is_cleared=True).execute()

    with Redis.from_url(world.sandbox.redis_url) as redis:
        assert redis.exists(f"asynq:{{idle.default}}:t:{job_of(first)}")


def test_a_result_that_came_while_no_triggerer_ran_is_taken() -> None:
    """Airflow itself ends a deferral, two minutes after our own deadline."""
    run = idle_run()
    deliver(run, result=7)
    assert run.time_out().value == 7


def test_where_none_came_the_timeout_says_so() -> None:
    run = idle_run()
    with pytest.raises(DeliveryTimeout, match="no triggerer did so before"):
        raise run.time_out().error
