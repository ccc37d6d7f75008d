"""A task on the Airflow that is installed, whichever version that is."""

from __future__ import annotations

import copy
import json
import os
import secrets
import signal
import time
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
import pytest
from redis import Redis

from devtools.airflow import Airflow
from devtools.client import FINISHED, AirflowClient
from runqy_delivery import Delivery, JobError
from runqy_provider.airflow_compat import RELEASE
from runqy_provider.connection_form import CONN_FIELDS
from runqy_provider.hooks.runqy import RunqyHook
from runqy_sandbox.process.net import free_port
from runqy_sandbox.sandbox import Sandbox
from tests.e2e import pod_executor
from tests.e2e.bursts import deliver_in_bursts
from tests.support.browser import browser_page, running_browser
from tests.support.stack import DAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

#: Seconds that each step may take on a busy machine.
LIMIT = 180.0

QUEUES = {
    "queues": {
        "transcribe": {
            "task_code": str(DAGS / "task_code" / "transcribe"),
            "sub_queues": [{"name": "high", "priority": 2}],
        },
        "idle": {"priority": 1},
    }
}


HAS_LOOPS = RELEASE >= (3, 4)
needs_loops = pytest.mark.skipif(not HAS_LOOPS, reason="Airflow has loops from 3.4 on")

DAG_IDS = {"results", "pods", "waiting", "killed", "many", "many_waiting"}
LOOPS = {"looped", "looped_waiting"} if HAS_LOOPS else set()


class World:
    """An Airflow, a sandbox beside it, and a folder in which its pods write."""

    def __init__(self, airflow: Airflow, sandbox: Sandbox, pods: Path) -> None:
        self.airflow = airflow
        self.pods = pods
        self.sandbox = sandbox
        self.client = AirflowClient(airflow.url)
        self.client.wait_for_dags(DAG_IDS | LOOPS)

    def task(self, dag_id: str, run_id: str, task_id: str = "wait") -> dict[str, Any]:
        """Return a task instance, as Airflow's API does."""
        found = self.client.task_instances(dag_id, run_id)
        return next(ti for ti in found if ti["task_id"] == task_id)

    def wait_until_deferred(self, dag_id: str, run_id: str) -> str:
        """Wait until the task waits for its job, and return the job's id."""
        wait_for(lambda: self.task(dag_id, run_id)["state"] == "deferred")
        return str(self.client.xcom(self.task(dag_id, run_id), "runqy_job")["job_id"])

    def iterations(
        self, dag_id: str, run_id: str, task_id: str
    ) -> list[dict[str, Any]]:
        """Return the instances of a task of a loop, in order."""
        found = self.client.task_instances(dag_id, run_id)
        of_task = [ti for ti in found if ti["task_id"] == task_id]
        return sorted(of_task, key=lambda ti: ti["loop_iteration"]["iteration"])

    def wait_until_triggered(self, run_id: str, iteration: int, tries: int) -> str:
        """Wait until a triggerer has a try of ``looped_waiting``; return its job."""

        def has_it() -> bool:
            tis = self.iterations("looped_waiting", run_id, "body.wait")[iteration:]
            return any(
                (ti["state"], ti["try_number"]) == ("deferred", tries)
                and "starting" in self.client.log(ti)
                for ti in tis
            )

        wait_for(has_it)
        ti = self.iterations("looped_waiting", run_id, "body.wait")[iteration]
        return str(self.client.xcom(ti, "runqy_job")["job_id"])

    def waiting_rows(self) -> list[dict[str, Any]]:
        """Return the tasks that the page shows."""
        session = self.client._session
        answer = session.get(f"{self.airflow.url}/view/runqy/api/waits", timeout=60)
        rows: list[dict[str, Any]] = answer.json()["rows"]
        return rows

    def wait_for_end(self, dag_id: str, run_id: str) -> str:
        """Wait for the end of a run, and return its state."""

        def states() -> list[tuple[Any, ...]]:
            names = ("task_id", "map_index", "region_index", "state", "try_number")
            found = self.client.task_instances(dag_id, run_id)
            return sorted(tuple(str(ti.get(n)) for n in names) for ti in found)

        wait_for(lambda: self.client.state(dag_id, run_id) in FINISHED, states)
        return self.client.state(dag_id, run_id)

    def has_job(self, job_id: str) -> bool:
        """Return whether runqy still has a job that waits for a worker."""
        with Redis.from_url(self.sandbox.redis_url) as redis:
            return bool(redis.exists(f"asynq:{{idle.default}}:t:{job_id}"))

    def jobs(self) -> int:
        """Return how many jobs were enqueued and are still there."""
        with Redis.from_url(self.sandbox.redis_url) as redis:
            return len(redis.keys("asynq:{idle.default}:t:*"))


def wait_for(
    condition: Callable[[], Any], progress: Callable[[], Any] = lambda: None
) -> None:
    """Wait until a condition holds, as long as there is progress."""
    seen, end = progress(), time.monotonic() + LIMIT
    while not condition():
        if (now := progress()) != seen:
            seen, end = now, time.monotonic() + LIMIT
        assert time.monotonic() < end, f"it does not hold in time: {seen}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("version")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    executors = f"LocalExecutor,{pod_executor.PATH}"
    pod = {
        **pod_executor.remote_environment(folder / "pod", _dags(), url),
        "AIRFLOW__CORE__EXECUTOR": executors,
    }
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(QUEUES, retry_unit=1))
        connections = sandbox.connections(f"{url}/runqy", secrets.token_hex(32))
        connections["good"] = connections.pop("runqy_default")
        connections["direct"] = copy.deepcopy(connections["good"])
        connections["direct"]["extra"]["transport"] = "redis"
        for conn_id in ("good", "redis_default"):
            variable = f"AIRFLOW_CONN_{conn_id.upper()}"
            os.environ[variable] = json.dumps(connections[conn_id])
            stack.callback(os.environ.pop, variable)
        airflow = Airflow(
            folder / "airflow",
            _dags(),
            connections,
            parallelism=4,
            port=port,
            environment={
                "AIRFLOW__CORE__EXECUTOR": executors,
                "PYTHONPATH": str(DAGS.parent),
                pod_executor.ENVIRONMENT: json.dumps(pod),
                pod_executor.FOLDER: str(folder),
            },
        )
        yield World(stack.enter_context(airflow), sandbox, folder)


def _dags() -> Path:
    return DAGS.parent / "tests" / "e2e" / "version_dags"


def deliver(job_id: str, result: Any) -> None:
    """Deliver a result as the task code of the job would."""
    with RunqyHook("good") as hook:
        payload = hook.get_job(job_id).payload
    body = {"task_id": payload["task_id"], "result": result}
    httpx.post(payload["webhook_url"], json=body).raise_for_status()


def submit(payload: dict[str, Any]) -> str:
    """Enqueue a job that delivers its result to the inbox; return its delivery id."""
    delivery_id = str(uuid.uuid4())
    with RunqyHook("good") as hook:
        hook.submit(
            "webhook",
            runqy_queue="transcribe.high",
            payload=payload,
            delivery_id=delivery_id,
            deadline=time.time() + 3600,
        )
    return delivery_id


def deliver_failure(job_id: str) -> None:
    """Deliver a failure as the task code of the job would."""
    with RunqyHook("good") as hook:
        payload = hook.get_job(job_id).payload
    error = JobError("too dark", "ValueError")
    delivery = Delivery(payload["task_id"], status="failed", error=error)
    url = payload["webhook_url"]
    httpx.post(url, content=delivery.to_json()).raise_for_status()


def test_webhook_and_s3_tasks_return_results(world: World) -> None:
    run_id = world.client.trigger("results")

    assert world.wait_for_end("results", run_id) == "success"
    for task_id in ("webhook", "s3"):
        ti = world.task("results", run_id, task_id)
        receipt = world.client.xcom(ti, "runqy_delivery")
        assert receipt["status"] == "completed"
        assert "hello.wav" in str(world.client.xcom(ti))
        assert ti["end_date"] is not None
    assert world.client.xcom(world.task("results", run_id, "length")) > 0


@pytest.mark.skipif(RELEASE >= (3, 2), reason="tests/e2e/test_executors.py does it")
def test_pods_have_the_defaults_of_options(world: World) -> None:
    run_id = world.client.trigger("pods")
    deliver(world.wait_until_deferred("pods", run_id), {"text": "hello"})

    assert world.wait_for_end("pods", run_id) == "success"
    assert world.client.xcom(world.task("pods", run_id)) == {"text": "hello"}
    assert len(list(world.pods.glob("pods.wait.*.pid"))) == 2


def test_task_marked_failed_deletes_its_pending_job(world: World) -> None:
    run_id = world.client.trigger("waiting")
    job_id = world.wait_until_deferred("waiting", run_id)
    wait_for(lambda: world.task("waiting", run_id).get("triggerer_job"))
    assert world.has_job(job_id)
    path = f"/dags/waiting/dagRuns/{run_id}/taskInstances/wait"
    world.client.patch(path, {"new_state": "failed"})

    wait_for(lambda: not world.has_job(job_id))


def test_task_cleared_has_a_new_job_and_its_pending_one_is_deleted(
    world: World,
) -> None:
    run_id = world.client.trigger("waiting")
    job_id = world.wait_until_deferred("waiting", run_id)
    wait_for(lambda: world.task("waiting", run_id).get("triggerer_job"))
    clear = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["wait"]}
    world.client.post(
        "/dags/waiting/clearTaskInstances", {**clear, "only_failed": False}
    )

    wait_for(lambda: not world.has_job(job_id))
    wait_for(lambda: world.task("waiting", run_id)["try_number"] == 2)
    new_id = world.wait_until_deferred("waiting", run_id)
    assert new_id != job_id
    deliver(new_id, {"text": "asked for again"})
    assert world.wait_for_end("waiting", run_id) == "success"


def test_triggerer_killed_and_started_again_takes_result(world: World) -> None:
    run_id = world.client.trigger("waiting")
    job_id = world.wait_until_deferred("waiting", run_id)
    triggerer = world.airflow.processes["triggerer"]
    os.killpg(triggerer.pid, signal.SIGKILL)
    triggerer.wait()
    deliver(job_id, {"text": "delivered while no triggerer ran"})
    world.airflow.start_component("triggerer")

    assert world.wait_for_end("waiting", run_id) == "success"
    value = world.client.xcom(world.task("waiting", run_id))
    assert "while no triggerer ran" in str(value)


def test_task_process_killed_retry_waits_for_the_same_job(world: World) -> None:
    before = world.jobs()
    run_id = world.client.trigger("killed")
    wait_for(lambda: world.task("killed", run_id)["try_number"] == 2)
    job_id = world.wait_until_deferred("killed", run_id)
    assert world.jobs() == before + 1, "one job for both tries"
    deliver(job_id, {"text": "once"})

    assert world.wait_for_end("killed", run_id) == "success"
    ti = world.task("killed", run_id)
    assert ti["try_number"] == 2
    assert "waiting for its delivery" in world.client.log(ti)


def test_batch_resumes_and_a_task_is_mapped_over_its_results(world: World) -> None:
    run_id = world.client.trigger("many")

    assert world.wait_for_end("many", run_id) == "success"
    tasks = world.client.task_instances("many", run_id)
    [batch] = [ti for ti in tasks if ti["task_id"] == "batch"]
    results = world.client.xcom(batch)
    texts = [result["text"] for result in results]
    assert [f"{number}.wav" in text for number, text in enumerate(texts)] == [True] * 6
    assert sum(ti["task_id"] == "length" for ti in tasks) == 6


def test_batch_marked_failed_deletes_its_pending_jobs(world: World) -> None:
    before = world.jobs()
    run_id = world.client.trigger("many_waiting")
    world.wait_until_deferred("many_waiting", run_id)
    wait_for(lambda: world.task("many_waiting", run_id).get("triggerer_job"))
    assert world.jobs() == before + 5
    path = f"/dags/many_waiting/dagRuns/{run_id}/taskInstances/wait"
    world.client.patch(path, {"new_state": "failed"})

    wait_for(lambda: world.jobs() == before)


def test_channel_deliveries_in_bursts_are_each_taken_once(world: World) -> None:
    deliver_in_bursts(world.client, "good")


@pytest.mark.skipif(RELEASE < (3, 1, 8), reason="Airflow needs its FAB provider")
def test_connection_form_has_all_fields(world: World) -> None:
    session = world.client._session
    answer = session.get(f"{world.airflow.url}/ui/connections/hook_meta")
    [form] = [one for one in answer.json() if one["connection_type"] == "runqy"]

    assert list(form["extra_fields"]) == list(CONN_FIELDS)
    assert form["standard_fields"]["password"]["title"] == "API key"


@needs_loops
def test_loop_each_iteration_has_jobs_and_results_of_its_own(world: World) -> None:
    deliveries = [submit({"input": "same.wav"}) for _ in range(3)]
    run_id = world.client.trigger("looped", {"deliveries": deliveries})

    assert world.wait_for_end("looped", run_id) == "success"
    same = {"text": "what was said in same.wav", "words": 5}
    values = {"job": same, "batch": [same] * 2, "sensor": same}
    for name, value in values.items():
        tis = world.iterations("looped", run_id, f"body.{name}")
        assert [world.client.xcom(ti) for ti in tis] == [value] * 3
    for name in ("job", "batch", "follow"):
        tis = world.iterations("looped", run_id, f"body.{name}")
        ids = {world.client.xcom(ti, "runqy_job")["delivery_id"] for ti in tis}
        assert len(ids) == 3, name
        assert len({ti["region_id"] for ti in tis}) == 1
    # ``loop.previous`` is the result of the iteration before.
    texts = world.client.xcom(world.task("looped", run_id, "gather"))
    said = "what was said in "
    assert texts == [said * count + "nothing" for count in (1, 2, 3)]


@needs_loops
def test_loop_iterations_are_retried_shown_and_killed_apart(world: World) -> None:
    run_id = world.client.trigger("looped_waiting")
    failing = world.wait_until_triggered(run_id, iteration=0, tries=1)
    [first] = world.waiting_rows()
    deliver_failure(failing)
    retried = world.wait_until_triggered(run_id, iteration=0, tries=2)
    deliver(retried, {"text": "the second try"})
    pending = world.wait_until_triggered(run_id, iteration=1, tries=1)
    [second] = world.waiting_rows()
    with running_browser() as browser, browser_page(browser) as page:
        page.goto(f"{world.airflow.url}/view/runqy/")
        link = page.locator("#waits a", has_text="body.wait, iteration 1")
        href = str(link.get_attribute("href"))
        page.goto(href)
        page.get_by_text("Iteration").first.wait_for()
        shown = page.locator("body").inner_text()
    ti = world.iterations("looped_waiting", run_id, "body.wait")[1]
    place = {name: ti[name] for name in ("region_id", "region_index")}
    path = f"/dags/looped_waiting/dagRuns/{run_id}/taskInstances/body.wait"
    world.client.patch(f"{path}?{urlencode(place)}", {"new_state": "failed"})
    wait_for(lambda: not world.has_job(pending))

    assert len({failing, retried, pending}) == 3
    assert (first["iteration"], first["job_id"]) == (0, failing)
    assert (second["iteration"], second["job_id"]) == (1, pending)
    assert {row["map_index"] for row in (first, second)} == {-1}
    assert href.endswith(f"/tasks/body.wait?{urlencode(place)}")
    assert "body.wait" in shown
    world.wait_for_end("looped_waiting", run_id)
    done = world.iterations("looped_waiting", run_id, "body.wait")
    assert [ti["state"] for ti in done] == ["success", "failed"]
    assert world.client.xcom(done[0]) == {"text": "the second try"}
    assert "The triggerer ends the task" in world.client.log(done[0])
