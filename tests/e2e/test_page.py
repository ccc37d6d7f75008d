"""The page in Airflow's UI, in a browser: what it shows, and to whom."""

from __future__ import annotations

import re
import socket
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests
from sqlalchemy import create_engine

from runqy_delivery import Delivery
from tests.e2e.page_world import WAITING, page_world
from tests.support.browser import browser_page, running_browser, screenshot
from tests.support.waiting_tasks import WaitingTasks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Frame, Page

    from tests.e2e.page_world import PageWorld

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

MANY = 10_000

#: One more than the page shows of all connections together.
MANY_DELIVERIES = 26

#: What Airflow's own theme does when it is changed in another tab.
SET_MODE = """mode => {
  localStorage.setItem("theme", mode);
  dispatchEvent(new StorageEvent("storage", { key: "theme", newValue: mode }));
}"""

#: Seconds from the beginning of the page to the first answer with waiting tasks, and
#: from its request to that answer.
TIMES = """() => {
  const [one] = performance.getEntriesByType("resource").filter(
    (entry) => entry.name.includes("/api/waits"));
  return [one.responseEnd / 1000, one.duration / 1000];
}"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageWorld]:
    """A running Airflow with waiting tasks."""
    with page_world(tmp_path_factory.mktemp("page")) as world:
        yield world


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A browser in which nobody is logged in."""
    with browser_page(browser) as page:
        yield page


def log_in(page: Page, world: PageWorld, user: str) -> None:
    page.goto(f"{world.airflow.url}/auth/login")
    page.locator("input[name=username]").fill(user)
    page.locator("input[type=password]").fill(world.password(user))
    page.locator("button[type=submit]").click()
    page.wait_for_url(lambda url: "/auth/" not in url)


def open_page(page: Page, world: PageWorld) -> Frame:
    """Open the page inside Airflow's UI, and return its frame."""
    page.goto(f"{world.airflow.url}/plugin/runqy")
    frame = page.locator("iframe").element_handle().content_frame()
    assert frame is not None
    frame.locator("#status", has_text="Live").wait_for()
    return frame


def background(frame: Frame) -> str:
    return str(frame.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_page_shows_connections_queues_waits_and_deliveries(
    world: PageWorld, page: Page
) -> None:
    delivery_id, other_id = str(uuid.uuid4()), str(uuid.uuid4())
    first, second = (Delivery(delivery_id, result=n).to_json() for n in (1, 2))
    assert world.deliver(delivery_id, first) == requests.codes.ok
    assert world.deliver(delivery_id, second) == requests.codes.conflict
    assert world.deliver(other_id, first, forged=True) == requests.codes.forbidden
    log_in(page, world, "anna")
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    frame = open_page(page, world)

    frame.locator("#waits tbody tr").nth(WAITING - 1).wait_for()
    frame.locator("#rejected td", has_text="bad token or expired").wait_for()
    text = frame.locator("main").inner_text()
    assert world.sandbox.server_url in text
    for part in ("podcast_transcripts", "render_video", "80 %, tile 12 of 15"):
        assert part in text
    video = frame.locator("#queues tr", has_text="video.default")
    assert re.sub(r"\s+", " ", video.inner_text()) == (
        "video.default runqy_default 1 0 0 0 0 0"
    )
    accepted = frame.locator("#accepted tr", has_text=delivery_id).inner_text()
    assert "stored" in accepted
    rejected = frame.locator("#rejected tr", has_text=delivery_id).inner_text()
    assert "conflict: another result came first" in rejected
    assert {urlsplit(url).netloc for url in urls if url.startswith("http")} == {
        urlsplit(world.airflow.url).netloc
    }
    assert errors == []


def test_page_follows_the_mode_of_airflow(world: PageWorld, page: Page) -> None:
    log_in(page, world, "anna")
    page.evaluate(SET_MODE, "light")
    frame = open_page(page, world)
    frame.locator("#waits tbody tr").nth(WAITING - 1).wait_for()
    frame.locator("#rejected tbody tr").first.wait_for()
    light = background(frame)
    screenshot(page, "runqy-page-light")

    page.evaluate(SET_MODE, "dark")
    frame.locator("html[data-theme=dark]").wait_for()
    dark = background(frame)
    screenshot(page, "runqy-page-dark")
    page.evaluate(SET_MODE, "light")
    frame.locator("html[data-theme=light]").wait_for()

    assert light == background(frame) == "rgb(255, 255, 255)"
    assert dark == "rgb(17, 17, 17)"


def test_page_is_in_the_menu_and_links_to_the_task(
    world: PageWorld, page: Page
) -> None:
    """Airflow's frame forbids links out of it, so the page around it follows them."""
    log_in(page, world, "anna")
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="runqy").click()
    page.wait_for_url("**/plugin/runqy**")
    page.frame_locator("iframe").get_by_role("link", name="transcribe [0]").click()
    page.wait_for_url("**/tasks/transcribe/mapped/0**")

    assert "/dags/podcast_transcripts/runs/" in page.url


def test_page_new_delivery_appears_without_reload_and_as_text(
    world: PageWorld, page: Page
) -> None:
    log_in(page, world, "anna")
    frame = open_page(page, world)
    hostile = "<img src=x onerror=alert(1)>"
    assert world.deliver(hostile, b"{}", forged=True) == requests.codes.forbidden

    cell = frame.locator("#rejected td.id", has_text=hostile)
    cell.wait_for()

    assert frame.locator("#rejected img").count() == 0


def test_page_state_of_a_server_is_unknown_until_it_has_answered(
    world: PageWorld, page: Page
) -> None:
    log_in(page, world, "anna")
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as server,
        world.connection("silent", host=f"http://127.0.0.1:{server.getsockname()[1]}"),
    ):
        frame = open_page(page, world)
        row = frame.locator("#connections tr", has_text="silent")
        cell = row.locator("td").nth(1).locator("span")
        cell.filter(has_text="Checking").wait_for()
        first = cell.get_attribute("class")
        # The other parts of the row do not wait for the server.
        row.locator("td").nth(2).locator(".good").wait_for()
        cell.filter(has_text="did not answer within 10 s").wait_for()

        assert first == "muted"
        assert cell.get_attribute("class") == "bad"


def test_page_deliveries_of_all_connections_are_shown_and_no_row_is_cut(
    world: PageWorld, page: Page
) -> None:
    log_in(page, world, "anna")
    with world.connection("quiet"):
        one = Delivery("of-quiet", result=1).to_json()
        assert world.deliver("of-quiet", one, conn_id="quiet") == requests.codes.ok
        for number in range(MANY_DELIVERIES):
            body = Delivery(f"of-busy-{number}", result=1).to_json()
            assert world.deliver(f"of-busy-{number}", body) == requests.codes.ok
        frame = open_page(page, world)
        frame.locator("#accepted tr", has_text="of-quiet").wait_for()
        frame.locator("#accepted tr", has_text=f"busy-{number}").wait_for()
        cut = frame.evaluate(
            """() => [...document.querySelectorAll(".scroll")]
              .filter((box) => box.scrollHeight > box.clientHeight)
              .map((box) => box.firstElementChild.id)"""
        )
        shown = frame.locator("#accepted tbody tr").count()

    assert cut == []
    assert shown == MANY_DELIVERIES


def test_page_viewer_sees_waits_but_no_connections(
    world: PageWorld, page: Page
) -> None:
    log_in(page, world, "vera")
    frame = open_page(page, world)
    frame.locator("#waits tbody tr").nth(WAITING - 1).wait_for()
    note = frame.locator("#connections-note")
    note.wait_for()

    assert "Only users who may read connections" in note.inner_text()
    assert frame.locator("#queues tbody tr").count() == 0
    assert world.sandbox.server_url not in frame.locator("main").inner_text()


def test_page_user_without_rights_sees_nothing(world: PageWorld, page: Page) -> None:
    log_in(page, world, "nora")
    response = page.goto(f"{world.airflow.url}/view/runqy/")
    assert response is not None

    assert response.status == requests.codes.forbidden
    assert "Ask an administrator" in page.locator("body").inner_text()
    page.context.clear_cookies()
    unauthenticated = page.goto(f"{world.airflow.url}/view/runqy/")
    assert unauthenticated is not None
    assert unauthenticated.status == requests.codes.unauthorized


def test_page_server_away_says_so_and_keeps_what_is_shown(
    world: PageWorld, page: Page
) -> None:
    log_in(page, world, "anna")
    frame = open_page(page, world)
    frame.locator("#waits tbody tr").first.wait_for()
    page.route("**/view/runqy/api/**", lambda route: route.abort())

    frame.locator("#status", has_text="Airflow cannot be reached").wait_for()
    assert frame.locator("#waits tbody tr").count() == WAITING
    page.unroute("**/view/runqy/api/**")
    frame.locator("#status", has_text="Live").wait_for()


def test_page_paused_or_hidden_fetches_nothing(world: PageWorld, page: Page) -> None:
    log_in(page, world, "anna")
    page.clock.install()
    frame = open_page(page, world)
    frame.locator("#waits tbody tr").first.wait_for()
    urls: list[str] = []
    page.on("request", lambda one: urls.append(one.url))

    def fetched() -> int:
        page.clock.run_for(30_000)
        count = sum("/view/runqy/api/" in url for url in urls)
        urls.clear()
        return count

    assert fetched() > 0
    frame.get_by_role("button", name="Pause").click()
    fetched()
    assert fetched() == 0
    with page.expect_response("**/view/runqy/api/waits**"):
        frame.get_by_role("button", name="Continue").click()
    frame.evaluate("Object.defineProperty(document, 'hidden', {get: () => true})")
    fetched()
    assert fetched() == 0


def test_page_ten_thousand_waits_refresh_without_jumping(
    world: PageWorld, page: Page
) -> None:
    world.stop_all_but_api_server()
    engine = create_engine(f"sqlite:///{world.airflow.home}/airflow.db")
    log_in(page, world, "anna")
    with WaitingTasks("many", MANY, queues=("speech.default",)).inserted(engine):
        frame = open_page(page, world)
        frame.locator("#waits tbody tr").nth(49).wait_for()
        frame.locator("#triggerer-note", has_text="No triggerer").wait_for()
        total = frame.locator("#waits-total").inner_text()
        print(f"{total} waits are there after {frame.evaluate(TIMES)} s")  # noqa: T201 - for pytest -s
        refresh(page)
        before = scrolled(frame)
        for _ in range(2):
            refresh(page)
        after = state(frame)
        frame.locator("#filter-text").fill("many")
        frame.locator("#range", has_text=re.compile("^1.50 of 10,000$")).wait_for()
        frame.get_by_role("button", name="Next").click()
        frame.locator("#range", has_text=re.compile("^51.100 of 10,000$")).wait_for()
        shown = frame.locator("#waits tbody tr").count()
    engine.dispose()

    assert total == "10,007"
    assert after == before
    assert before["y"] > 300
    assert before["selected"]
    assert shown == 50


def refresh(page: Page) -> None:
    """Wait until the page has fetched the waiting tasks once more."""
    with page.expect_response("**/view/runqy/api/waits**") as answer:
        pass
    assert answer.value.ok


def scrolled(frame: Frame) -> dict[str, Any]:
    """Scroll down, focus a link, and select the text of a row."""
    frame.evaluate(
        """() => {
          const rows = document.querySelectorAll("#waits tbody tr");
          rows[20].querySelector("a").focus();
          scrollTo(0, 600);
          getSelection().selectAllChildren(rows[21].cells[3]);
          globalThis.marked = rows[20];
        }"""
    )
    return state(frame)


def state(frame: Frame) -> dict[str, Any]:
    """Return what must not change: scroll position, focus, selection, rows."""
    found: dict[str, Any] = frame.evaluate(
        """() => ({
          y: scrollY,
          top: marked.getBoundingClientRect().top,
          isShown: document.contains(marked),
          focused: document.activeElement.closest("tr")?.dataset.key,
          selected: getSelection().toString(),
        })"""
    )
    return found
