"""A new user: a connection in the form, a first DAG, and what broken set-ups say."""

from __future__ import annotations

import json
import re
import time
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.hooks.runqy import RunqyHook
from tests.e2e.airflow_world import airflow_world
from tests.support.browser import browser_page, running_browser, screenshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page

    from tests.e2e.airflow_world import World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CONN_ID = "runqy_default"

#: Seconds that anything here may take on a loaded machine.
LIMIT = 300.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A running Airflow, in which the user has no connection to runqy yet."""
    with airflow_world(tmp_path_factory.mktemp("new_user")) as world:
        yield world


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A browser."""
    with running_browser() as browser, browser_page(browser) as page:
        yield page


def wait_for(condition: Callable[[], Any]) -> Any:
    """Return what a condition returns, as soon as that is true."""
    end = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.5)
    return found


def test_connection_form_and_test_button_work_in_the_browser(
    world: World, page: Page
) -> None:
    """The Test button of the list answers only for a connection with a port."""
    host, _, port = world.sandbox.server_url.rpartition(":")
    page.goto(f"{world.airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    page.locator('input[name="connection_id"]').fill(CONN_ID)
    page.get_by_role("combobox").first.click()
    page.keyboard.type("runqy")
    page.get_by_role("option", name="runqy").click()
    page.locator('input[name="host"]').fill(host)
    page.locator('input[name="password"]').fill(world.sandbox.client_key)
    page.locator('input[name="port"]').fill(port)
    page.get_by_text("Extra Fields", exact=True).click()
    extra = world.connections["good"]["extra"]
    for name in ("callback_url", "callback_secret", "admin_api_key"):
        page.locator(f'input[name="element_{name}"]').fill(extra[name])
    screenshot(page.get_by_role("dialog"), "connection-form")
    page.get_by_role("button", name="Save").click()
    with page.expect_response("**/connections/test") as answer:
        page.get_by_role("button", name="Test Connection").first.click()

    report = answer.value.json()
    assert report["status"], report["message"]
    subjects = ("Server", "API key", "Inbox", "Callback URL", "Default sink")
    for subject in subjects:
        assert f"[ok] {subject}: " in report["message"]
    # The queue that no worker serves.
    assert "[warning] Queues: No live worker serves idle.default" in report["message"]
    for secret in ("callback_secret", "admin_api_key"):
        assert extra[secret] not in report["message"]


def test_connection_test_button_names_what_is_wrong(world: World, page: Page) -> None:
    change = {"connection_id": CONN_ID, "conn_type": "runqy", "password": "wrong"}
    path = f"/connections/{CONN_ID}?update_mask=password"
    world.client.patch(path, change)
    try:
        page.goto(f"{world.airflow.url}/connections")
        page.get_by_role("button", name="Test Connection").first.click()
        toast = page.get_by_text("[failed] API key: ")
        toast.wait_for()
        assert "Enter a valid API key (password)" in toast.inner_text()
        screenshot(page, "connection-test")
    finally:
        good = world.connections["good"]["password"]
        world.client.patch(path, {**change, "password": good})


def test_check_command_reports_connection_of_the_database(world: World) -> None:
    """As for users whose Airflow has the Test button turned off."""
    report = world.airflow.run_python("-m", "runqy_provider", "check", CONN_ID)

    assert "[ok] Callback URL: " in report


def test_first_dag_run_succeeds_and_its_log_tells_the_way_of_the_job(
    world: World, page: Page
) -> None:
    client = world.client
    client.wait_for_dags({"first"})
    run_id = client.trigger("first")
    wait_for(lambda: client.state("first", run_id) in ("success", "failed"))
    tasks = {ti["task_id"]: ti for ti in client.task_instances("first", run_id)}

    assert {ti["state"] for ti in tasks.values()} == {"success"}
    assert "what was said in hello.wav" in str(client.xcom(tasks["show"]))
    log = client.log(tasks["transcribe"])
    assert re.search(r"Enqueued job \S+ in queue 'transcribe.high'", log)
    assert re.search(r"The result has arrived: \d+ bytes of application/json", log)
    page.goto(f"{world.airflow.url}/dags/first/runs/{run_id}/tasks/transcribe")
    page.get_by_text("The result has arrived").first.wait_for()
    screenshot(page, "task-log")
    page.get_by_role("link", name="Details", exact=True).click()
    link = page.get_by_role("link", name="runqy queue")
    link.wait_for()
    assert link.get_attribute("href") == (
        f"{world.sandbox.server_url}/monitoring/queues/transcribe.high"
    )


def test_delivery_on_a_channel_starts_the_watching_dag(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = world.client
    client.wait_for_dags({"channel"})
    for conn_id, fields in world.connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
    mark = uuid.uuid4().hex
    with RunqyHook("good") as hook:
        hook.submit(
            "webhook",
            runqy_queue="transcribe.high",
            payload={"input": mark},
            delivery_id=hook.new_delivery_id("transcripts"),
            deadline=time.time() + LIMIT,
        )

    def results() -> str:
        runs = client.get("/dags/channel/dagRuns")["dag_runs"]
        done = [run["dag_run_id"] for run in runs if run["state"] == "success"]
        return "".join(
            str(client.xcom(ti))
            for run_id in done
            for ti in client.task_instances("channel", run_id)
        )

    wait_for(lambda: f"what was said in {mark}" in results())


#: For each broken set-up: what its log must say, and within how many seconds on a busy
#: machine: half of them on an idle one.
BROKEN = {
    "wrong_key": (120, "Enter a valid API key (password) in the connection"),
    "wrong_queue": (120, "Its queues: crashing.default"),
    "redis_away": (120, "Redis at 127.0.0.1"),
    "bucket_denied": (120, "no-such-bucket"),
    "callback_unreachable": (120, "cannot be reached from this machine"),
    "callback_web_page": (120, "it is another web application, or a login page"),
    "wrong_secret": (120, "Give both sides the same secret"),
    "no_driver": (120, "The driver for oracle:// is not installed"),
    "returns_silently": (150, "Check that its task code delivers: with @delivers"),
    "crashes": (150, "runqy will run job"),
    "no_worker": (150, "Check that a runqy worker serves the queue 'idle.default'"),
}

#: Those that must not enqueue anything.
REFUSED = ("wrong_key", "wrong_queue", "redis_away", "bucket_denied")


@pytest.fixture(scope="module")
def broken_logs(world: World) -> dict[str, str]:
    """The logs of all tasks with a broken set-up, once they have ended."""
    client = world.client
    client.wait_for_dags({"broken"})
    run_id = client.trigger("broken")
    wait_for(lambda: client.state("broken", run_id) in ("success", "failed"))
    return {
        ti["task_id"]: client.log(ti) for ti in client.task_instances("broken", run_id)
    }


@pytest.mark.parametrize("task_id", BROKEN)
def test_broken_set_up_log_says_in_time_what_to_do(
    task_id: str, broken_logs: dict[str, str]
) -> None:
    limit, message = BROKEN[task_id]
    log = broken_logs[task_id]

    assert message in log, log[-3000:]
    assert _seconds_until(message, log) <= limit
    if task_id in REFUSED:
        assert "Enqueued job" not in log


def _seconds_until(message: str, log: str) -> float:
    """Return the seconds from the first line of a log to the one with a message."""
    times = []
    for line in log.splitlines():
        found = re.search(r"'timestamp': '([^']+)'|\"timestamp\": ?\"([^\"]+)\"", line)
        if found:
            times.append((datetime.fromisoformat(found[1] or found[2]), line))
    first = times[0][0]
    said = next(at for at, line in times if message in line)
    return (said - first).total_seconds()
