"""A page that loses its service, or whose service loses the broker."""

import json
import re

import pytest
from integration.builds import build, chain, component, held
from playwright.sync_api import Route, expect

from browser.conftest import OpenWindow, Place


def test_a_page_survives_a_restart_of_the_service(place: Place, open_window: OpenWindow) -> None:
    """It says that what it shows is old, and is live again when the service is back, without a reload."""
    connectors, submitter = place.world.connectors(), place.world.submitter()
    one = chain(held("vpc::1", "go"), component("network::2"))
    submitter.accepted(one)
    page = open_window(place.address(one["id"]))
    banner = page.locator("#banner")
    expect(page.locator("#status")).to_contain_text("running")
    expect(banner).to_be_hidden()
    place.scheduler.kill()
    expect(banner).to_contain_text("Connection lost; what is shown is of")
    place.again()
    expect(banner).to_be_hidden()
    connectors.release("go")
    expect(page.locator("#status")).to_contain_text("done")


def test_a_page_survives_a_stop_in_order(place: Place, open_window: OpenWindow) -> None:
    """The list of builds is told that the service stops."""
    one = build(component("vpc::1"))
    place.world.connectors()
    submitter = place.world.submitter()
    page = open_window(place.url)
    expect(page.locator("#empty")).to_be_visible()
    place.scheduler.end()
    expect(page.locator("#banner")).to_contain_text(re.compile("stopping|Connection lost"))
    place.again()
    expect(page.locator("#banner")).to_be_hidden()
    submitter.accepted(one)
    expect(page.get_by_role("row").filter(has_text=one["id"])).to_contain_text("done")


def test_a_trouble_is_told_until_it_has_passed(place: Place, open_window: OpenWindow) -> None:
    """Other news do not take it away."""
    page = open_window(f"{place.url}login")
    state = {"revision": 1, "now": 1.0, "builds": [], "statuses": {}, "silent": [{"name": "other"}]}
    events = [("snapshot", {**state, "trouble": "no broker"}), ("update", {"revision": 2, "now": 2.0})]
    body = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    page.route("**/api/stream", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page.goto(place.url)
    for text in ("What is shown may be old: no broker", "No answer from other", "Connection lost"):
        expect(page.locator("#banner")).to_contain_text(text)


HIDE = """
    let hidden = false;
    Object.defineProperty(document, "hidden", { get: () => hidden });
    window.hide = (to) => { hidden = to; document.dispatchEvent(new Event("visibilitychange")); };
"""


def test_a_tab_out_of_sight_keeps_no_connection(place: Place, open_window: OpenWindow) -> None:
    """It looks from time to time, and is live again when it is seen."""
    connectors, submitter = place.world.connectors(), place.world.submitter()
    one = chain(held("vpc::1", "go"), held("network::2", "end"))
    submitter.accepted(one)
    page = open_window(f"{place.url}login")
    page.add_init_script(HIDE)
    page.clock.install()
    page.goto(place.address(one["id"]))
    expect(page.locator("#status")).to_contain_text("running")
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/stream")):
        page.evaluate("hide(true)")
        page.clock.run_for(11_000)
    expect(page.locator("#banner")).to_be_hidden()
    connectors.release("go")
    connectors.await_requests(one["id"], "network::2")
    while not page.title().startswith("50 %"):
        with page.expect_event("requestfailed", lambda request: request.url.endswith("/stream")):
            page.clock.run_for(61_000)
    connectors.release("end")
    submitter.done(one)
    page.evaluate("hide(false)")
    expect(page.locator("#status")).to_contain_text("done")


def test_a_page_survives_an_outage_of_the_broker(place: Place, open_window: OpenWindow) -> None:
    """It tells of the trouble while it lasts, and shows what happened afterwards."""
    connectors, submitter = place.world.connectors(), place.world.submitter()
    one = chain(held("vpc::1", "go"), component("network::2"))
    submitter.accepted(one)
    page = open_window(place.address(one["id"]))
    expect(page.locator("#status")).to_contain_text("running")
    place.world.server.kill()
    expect(page.locator("#banner")).to_contain_text(re.compile(r"\w"))
    place.world.server.start()
    connectors.await_event("reconnected")
    expect(page.locator("#banner")).to_be_hidden()
    connectors.release("go")
    expect(page.locator("#status")).to_contain_text("done")


@pytest.mark.parametrize(
    ("tab", "sight"),
    [("graph", "[role=application]"), ("timeline", "[role=application]"), ("events", "tbody tr")],
    ids=["graph", "timeline", "events"],
)
def test_a_view_that_could_not_be_had_comes_by_itself(
    place: Place, open_window: OpenWindow, tab: str, sight: str
) -> None:
    """It says why it is not there, as while the owner of its build is away, until that is over."""
    place.world.connectors()
    submitter = place.world.submitter()
    one = chain(held("vpc::1", "go"), component("network::2"))
    submitter.accepted(one)
    page = open_window(f"{place.url}login")
    refusal = json.dumps({"error": "unavailable", "message": "its owner does not answer"})
    away = True

    def answer(route: Route) -> None:
        if away:
            route.fulfill(status=503, content_type="application/json", body=refusal)
        else:
            route.continue_()

    page.route(re.compile("/api/builds/"), answer)
    page.goto(place.address(one["id"], tab))
    expect(page.locator("#view [role=alert]")).to_contain_text("its owner does not answer")
    expect(page.locator("#banner")).to_contain_text("Connecting again")
    away = False
    expect(page.locator(f"#view {sight}").first).to_be_visible()
    expect(page.locator("#banner")).to_be_hidden()
