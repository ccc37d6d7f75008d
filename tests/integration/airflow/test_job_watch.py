"""Jobs that end without delivering, that wait for nobody, that are silent."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from runqy_provider.errors import (
    DeliveryTimeout,
    HeartbeatTimeout,
    JobFailed,
    JobVanished,
    Misconfigured,
    SinkUnavailable,
)
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.waiters.liveness import Vigil
from runqy_provider.waiters.registry import close_waiters
from runqy_provider.waiters.source import Arrival, News, Place
from runqy_provider.waiters.wait_any import wait_for_arrival
from runqy_provider.waiters.waiter import Waiter
from runqy_sandbox.process.net import free_port
from tests.support.harness import Run, outcome_of, run_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping

    from tests.support.stack import Gate, World

pytestmark = pytest.mark.usefixtures("connect", "no_settling", "quick_watch")

INTERVAL, GRACE = 0.3, 0.6


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", str(INTERVAL))
    monkeypatch.setenv("AIRFLOW__RUNQY__VANISHED_GRACE_SECONDS", str(GRACE))


@pytest.fixture(params=["redis", "http"])
def eyes(request: pytest.FixtureRequest, connect: Callable[..., Any]) -> str:
    """Where the watch looks: into runqy's Redis, or through its API."""
    if request.param == "http":
        connect(without=("runqy_redis_conn_id",))
    return str(request.param)


def started(run: Run) -> Run:
    run.execute()
    assert run.state == "deferred", run.last
    return run


@pytest.mark.parametrize("sink", ["webhook", "s3://results/silent"])
def test_task_code_that_delivers_nothing_fails_its_task_with_words(
    eyes: str, sink: str, world: World
) -> None:
    run = started(run_of({}, "silent", sink=sink))
    began = time.time()
    event = run.fire()

    assert time.time() - began < INTERVAL + GRACE + 5
    with pytest.raises(JobVanished) as caught:
        raise run.resume(event).error
    place = {
        "redis": "runqy's Redis at",
        "http": f"runqy at {world.sandbox.server_url}",
    }
    for words in ("without delivering", place[eyes], "silent.default", "runqy worker"):
        assert words in str(caught.value)


def test_a_waiting_slot_hears_of_it_too() -> None:
    run = run_of({}, "silent", deferrable=False).execute()
    with pytest.raises(JobVanished, match="without delivering"):
        raise run.error


def test_a_job_that_runqy_keeps_as_completed_has_delivered_nothing_either() -> None:
    run = started(run_of({"numbers": [1]}, "stored_guide"))
    with pytest.raises(JobVanished, match="says it is completed"):
        raise run.resume(run.fire()).error


def test_a_job_that_runqy_gives_up_fails_with_runqys_words(eyes: str) -> None:
    run = started(run_of({"numbers": ["x"]}, "stored_guide"))
    with pytest.raises(JobFailed) as caught:
        raise run.resume(run.fire()).error
    assert "gave job" in str(caught.value)
    words = {"redis": "unsupported operand", "http": "API does not say why"}
    assert words[eyes] in str(caught.value)


@pytest.mark.usefixtures("eyes")
def test_a_job_that_nobody_serves_is_told_of_in_the_tasks_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    limit = timedelta(seconds=2)
    run = started(run_of({}, "idle", delivery_timeout=limit))
    with pytest.raises(DeliveryTimeout, match=r"within delivery_timeout \(0:00:02\)"):
        raise run.resume(run.fire()).error
    said = capsys.readouterr().out
    assert "no live worker serves the queue 'idle.default'" in said


def test_a_job_that_is_run_again_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    run = started(run_of({"numbers": ["x"]}, "guide_webhook"))
    with pytest.raises(JobVanished):
        raise run.resume(run.fire()).error
    said = capsys.readouterr().out
    assert "is to be run again by runqy" in said
    assert "The log of the runqy worker says why" in said


def test_a_server_that_is_away_ends_no_wait(
    connect: Callable[..., Any], capsys: pytest.CaptureFixture[str], world: World
) -> None:
    run = started(run_of({"value": 5, "seconds": 2}))
    url = f"http://127.0.0.1:{free_port()}"
    connect(without=("runqy_redis_conn_id",), fields={"host": url})
    event = run.fire()

    assert event["event"] == "arrived"
    said = capsys.readouterr().out
    assert f"A look failed; waiting goes on: runqy at {url}" in said
    assert world.sandbox.server_url not in said


def test_a_watch_that_is_refused_ends_no_wait(
    connect: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    world: World,
) -> None:
    run = started(run_of({"value": 5, "seconds": 2}))
    url = f"redis://nobody:wrong@127.0.0.1:{world.sandbox.redis_port}"
    monkeypatch.setenv("AIRFLOW_CONN_REFUSING", url)
    connect(runqy_redis_conn_id="refusing")
    event = run.fire()

    assert event["event"] == "arrived"
    said = capsys.readouterr().out
    assert "A look failed; waiting goes on: Could not look at jobs" in said
    assert "Check login and password of connection 'refusing'" in said
    assert "nobody:wrong" not in said


def test_a_watch_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "0")
    run = started(run_of({}, "silent", delivery_timeout=timedelta(seconds=3)))
    with pytest.raises(DeliveryTimeout, match="runqy has forgotten"):
        raise run.resume(run.fire()).error


def test_a_negative_interval_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "-1")
    with pytest.raises(Misconfigured, match="watch_seconds must be 0 or more"):
        outcome_of(run_of({"value": 1}))


async def test_a_hundred_jobs_are_watched_at_one_look(
    eyes: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runqy_provider.client import job_status as sight
    from runqy_provider.context import get_access
    from runqy_provider.jobs.monitor import watch_place
    from runqy_provider.models import Ticket

    looks: list[int] = []
    for kind in (sight.RedisLookout, sight.ServerLookout):

        def counted(kind: Any = kind) -> Any:
            look = kind.look

            async def wrapper(self: Any, jobs: Any) -> Any:
                looks.append(len(jobs))
                return await look(self, jobs)

            return wrapper

        monkeypatch.setattr(kind, "look", counted())

    def enqueue() -> list[Ticket]:
        with RunqyHook() as hook:
            ids = [hook.enqueue("idle", {"n": n}).job_id for n in range(100)]
        return [Ticket(f"d{n}", job_id, "idle.default") for n, job_id in enumerate(ids)]

    tickets = await asyncio.to_thread(enqueue)
    access = await asyncio.to_thread(get_access, "runqy_default")
    places = [watch_place(access, ticket) for ticket in tickets]
    end = time.time() + 3 * INTERVAL
    waits = [
        wait_for_arrival([place], deadline=end) for place in places if place is not None
    ]
    with Redis.from_url(world.sandbox.redis_url) as redis:
        before = redis.info("clients")["connected_clients"]
        waiting = asyncio.gather(*waits)
        await asyncio.sleep(INTERVAL)
        connections = redis.info("clients")["connected_clients"] - before
        assert await waiting == [None] * 100
        await close_waiters()

    assert 100 in looks
    assert sum(looks) <= 100 * (len([n for n in looks if n == 100]) + 1)
    # One for the watch; over HTTP, whatever the server itself makes of it.
    assert connections <= (1 if eyes == "redis" else 8)


class Elsewhere:
    """A source that is away until it is told otherwise, and has it then."""

    def __init__(self) -> None:
        self.is_away = True
        self.looks = 0

    async def look(self, addresses: Collection[str]) -> Mapping[str, Any]:
        self.looks += 1
        if self.is_away:
            raise SinkUnavailable("the broker is away")
        return {text: Arrival("completed", "there", 1.0) for text in addresses}

    async def hints(self) -> AsyncIterator[str | None]:
        return
        yield

    async def aclose(self) -> None: ...


class Gone:
    """A watch that says at every look that the job is gone."""

    async def look(self, addresses: Collection[str]) -> Mapping[str, Any]:
        return {text: JobVanished("the job is gone.") for text in addresses}

    async def hints(self) -> AsyncIterator[str | None]:
        return
        yield

    async def aclose(self) -> None: ...


async def test_a_job_is_not_given_up_while_its_delivery_may_lie_unseen() -> None:
    elsewhere, heard = Elsewhere(), []

    def tell(news: News) -> None:
        heard.append(news.words)
        if "not all places" in news.words:
            elsewhere.is_away = False

    place = Place("elsewhere", lambda: Waiter(elsewhere, 60.0), "d")
    watch = Place("watch", lambda: Waiter(Gone(), 60.0), "j")
    vigil = Vigil(tell=tell)
    arrival = await wait_for_arrival(
        [place], deadline=time.time() + 30, vigil=vigil, watch=watch
    )
    await close_waiters()

    assert arrival is not None
    assert any("the job is gone. But not all places" in words for words in heard)


async def test_what_came_just_before_the_verdict_is_taken() -> None:
    elsewhere = Elsewhere()

    class Late(Gone):
        async def look(self, addresses: Collection[str]) -> Mapping[str, Any]:
            elsewhere.is_away = False
            return await super().look(addresses)

    # Its own sweeps and hints would not find it in time.
    place = Place("elsewhere", lambda: Waiter(elsewhere, 60.0), "d")
    watch = Place("watch", lambda: Waiter(Late(), 60.0), "j")
    arrival = await wait_for_arrival([place], deadline=time.time() + 30, watch=watch)
    await close_waiters()
    assert arrival is not None


def test_progress_stands_in_the_tasks_log_as_it_comes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = started(run_of({"value": 1, "progress": 0.25, "seconds": 1}))
    assert run.fire()["event"] == "arrived"
    said = capsys.readouterr().out
    assert "Progress: 25% rendering" in said


def test_the_last_progress_stands_in_the_timeout(gate: Gate) -> None:
    limit = timedelta(seconds=2)
    payload = {"progress": 0.5, **gate.closed}
    run = started(run_of(payload, execution_timeout=limit))
    with pytest.raises(DeliveryTimeout) as caught:
        raise run.resume(run.fire()).error
    assert "within execution_timeout (0:00:02)" in str(caught.value)
    assert "Last progress: 50% rendering." in str(caught.value)


def test_a_job_that_has_gone_silent_ends_the_wait_and_is_not_waited_for_again(
    gate: Gate,
) -> None:
    outcome_of(run_of({"value": 0}))  # so that the task process is free
    limit = timedelta(seconds=1)
    payload = {"value": 7, "progress": 0.5, **gate.closed}
    run = started(run_of(payload, heartbeat_timeout=limit))
    event = run.fire()
    with pytest.raises(HeartbeatTimeout) as caught:
        raise run.resume(event).error
    assert "within heartbeat_timeout (0:00:01)" in str(caught.value)
    assert "Last progress: 50% rendering." in str(caught.value)

    again = started(run.retried())
    assert again.xcoms["runqy_job"]["job_id"] != run.xcoms["runqy_job"]["job_id"]


def test_a_heartbeat_shorter_than_the_watchs_interval_ends_no_job_that_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor does one shorter than the time in the slot."""
    monkeypatch.setenv("AIRFLOW__RUNQY__WATCH_SECONDS", "30")
    run = started(
        run_of(
            {},
            "idle",
            heartbeat_timeout=timedelta(seconds=0.2),
            delivery_timeout=timedelta(seconds=2),
            defer_after=timedelta(seconds=0.5),
        )
    )

    assert run.fire()["event"] == "deadline"


def test_time_in_the_queue_is_no_silence(capsys: pytest.CaptureFixture[str]) -> None:
    run = started(
        run_of(
            {},
            "idle",
            heartbeat_timeout=timedelta(seconds=1),
            delivery_timeout=timedelta(seconds=3),
        )
    )
    with pytest.raises(DeliveryTimeout):
        raise run.resume(run.fire()).error
    said = capsys.readouterr().out
    assert "no live worker" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sink": "redis_storage"}, "'redis_storage' cannot be combined"),
        ({"sink": "sql://db/tasks"}, r"sink=\['sql://db/tasks', 'webhook'\]"),
        ({"heartbeat_timeout": timedelta(0)}, "longer than zero"),
    ],
)
def test_a_heartbeat_that_cannot_be_heard_is_refused(
    arguments: dict[str, Any], words: str
) -> None:
    arguments = {"heartbeat_timeout": timedelta(seconds=1), **arguments}
    with pytest.raises(Misconfigured, match=words):
        outcome_of(run_of({}, **arguments))


def test_progress_never_lingers_as_a_result(world: World) -> None:
    """What task code says of itself meanwhile is no final word, however it is put."""
    run = started(run_of({}, "idle"))
    with RunqyHook() as hook:
        job = hook.get_job(run.xcoms["runqy_job"]["job_id"])
    body = {
        "task_id": job.payload["task_id"],
        "status": "progress",
        "result": "no result",
        "fraction": 7,
        "text": "a\nb" + "x" * 5000,
    }
    answer = httpx.post(job.payload["webhook_url"], json=body)

    assert answer.status_code == 202
    with Redis.from_url(world.sandbox.redis_url) as redis:
        [key] = redis.keys(f"*progress:{job.payload['task_id']}")
        kept = redis.get(key)
    assert kept is not None
    assert len(kept) < 700
    assert b"\\n" not in kept
    assert b"1.0" in kept


async def test_a_verdict_that_cannot_be_trusted_yet_is_asked_for_ever_more_rarely() -> (
    None
):
    elsewhere = Elsewhere()
    place = Place("elsewhere", lambda: Waiter(elsewhere, 60.0), "d")
    watch = Place("watch", lambda: Waiter(Gone(), 60.0), "j")
    with pytest.raises(JobVanished):
        await wait_for_arrival([place], deadline=time.time() + 4, watch=watch)
    await close_waiters()

    assert 2 <= elsewhere.looks < 40


def test_a_job_whose_worker_was_lost_is_told_of(
    gate: Gate, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stays active until its lease is over; runqy says nothing of it meanwhile."""
    limit = timedelta(seconds=4)
    run = started(run_of(dict(gate.closed), delivery_timeout=limit))
    with Redis.from_url(world.sandbox.redis_url) as redis:
        key = f"asynq:{{helper.default}}:t:{run.xcoms['runqy_job']['job_id']}"
        until = time.monotonic() + 10
        while redis.hget(key, "state") != b"active" and time.monotonic() < until:
            time.sleep(0.05)
        world.sandbox.worker.kill()
        for worker in redis.keys("asynq:workers:*"):
            redis.delete(worker)  # as they expire
    try:
        assert run.fire()["event"] == "deadline"
    finally:
        world.sandbox.worker.start()
    assert "its worker was lost" in capsys.readouterr().out


def test_a_job_whose_lease_is_over_is_told_of_though_others_serve_its_queue(
    gate: Gate, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in for the hours that a worker may hang: its lease is set back."""
    limit = timedelta(seconds=4)
    run = started(run_of(dict(gate.closed), delivery_timeout=limit))
    job_id = run.xcoms["runqy_job"]["job_id"]
    leases = "asynq:{helper.default}:lease"
    with Redis.from_url(world.sandbox.redis_url) as redis:
        until = time.monotonic() + 10
        while redis.zscore(leases, job_id) is None and time.monotonic() < until:
            time.sleep(0.05)
        world.sandbox.worker.kill()
        redis.zadd(leases, {job_id: time.time() - 60}, xx=True)
    try:
        assert run.fire()["event"] == "deadline"
    finally:
        world.sandbox.worker.start()
    said = capsys.readouterr().out
    assert f"Job {job_id} is active, but its lease is over: its worker was lost" in said
