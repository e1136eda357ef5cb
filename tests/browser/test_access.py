"""For everybody: without violations of the rules of accessibility, in dark and light, wide and narrow."""

import os
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from integration.builds import build, component, failing, held
from playwright.sync_api import Page, expect

from browser.conftest import OpenWindow, Place, log_in

IMAGES = Path(__file__).parents[2] / "scheduler" / "docs" / "images"
MOST_BYTES = 150_000
"""Bytes of a picture in the documentation."""
VIEWS = ("graph", "timeline", "components", "events", "report", "plan")
OPTIONS = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    },
    "resultTypes": ["violations"],
}


def production() -> dict[str, Any]:
    """A build with something of everything."""
    network = [held("vpc::main", "vpc"), component("network::web"), component("network::db")]
    hosts = [component(f"instance::web-{n}") for n in range(1, 5)] + [held("instance::db-1", "never")]
    gate = component("gate::go-live", action="approve", what="the new load balancer")
    last = [component("elb::public"), component("firewall::public")]
    edges = [f"vpc::main network::{name}" for name in ("web", "db")]
    edges += [f"network::web instance::web-{n} gate::go-live" for n in range(1, 5)]
    edges += ["network::db instance::db-1", "gate::go-live elb::public", "vpc::main firewall::public"]
    return build(*network, *hosts, gate, *last, edges=", ".join(edges), id="production-42", name="web shop")


def check(page: Page) -> None:
    """Fail on a violation, in words."""
    found = Axe().run(page, options=OPTIONS).response["violations"]
    where = {one["id"]: [node["html"][:160] for node in one["nodes"][:4]] for one in found}
    assert not where


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_violates_the_rules(guarded: Place, open_window: OpenWindow, width: int, scheme: str) -> None:
    """All pages, with a component open and a question asked; and nothing is wider than the window."""
    connectors, submitter = guarded.world.connectors(), guarded.world.submitter()
    runs, fails = production(), build(failing("vpc::1", "no room is left in the zone"))
    submitter.accepted(runs, fails)
    submitter.failed(fails)
    connectors.release("vpc")
    connectors.await_requests(runs["id"], "instance::db-1")
    page = open_window(f"{guarded.url}login", width=width, color_scheme=scheme)
    check(page)
    log_in(page, guarded)
    check(page)
    for view in VIEWS:
        page.goto(guarded.address(runs["id"], view))
        expect(page.locator("#status")).to_contain_text("running")
        expect(page.get_by_text("Loading")).to_have_count(0)
        check(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
    page.goto(guarded.address(runs["id"], "components", "network::web"))
    expect(page.get_by_role("heading", name="Why")).to_be_visible()
    check(page)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    check(page)


def test_all_can_be_reached_by_keys(guarded: Place, open_window: OpenWindow) -> None:
    """From the top of the page to the drawing, and each stop can be seen."""
    guarded.world.connectors()
    one = production()
    guarded.world.submitter().accepted(one)
    page = open_window(guarded.url)
    log_in(page, guarded)
    page.goto(guarded.address(one["id"]))
    expect(page.get_by_role("application")).to_be_visible()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name, shown = page.evaluate(
            """() => { const at = document.activeElement, style = getComputedStyle(at);
                return [at.getAttribute("role") ?? at.textContent.trim(),
                        style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2]; }"""
        )
        assert shown, name
        reached.append(name)
        if name == "application":
            break
    assert reached[0] == "Skip to the view"
    assert {"Why?", "Graph", "Plan", "application"} <= set(reached)


def test_the_pictures_in_the_documents_are_of_these_pages(guarded: Place, open_window: OpenWindow) -> None:
    """Each page is there, and small; with SCREENSHOTS=1 they are taken anew."""
    names = ["builds", *VIEWS]
    if os.environ.get("SCREENSHOTS"):
        take(guarded, open_window)
    for name in names:
        picture = IMAGES / f"page-{name}.png"
        assert picture.is_file(), f"{picture.name} is missing: SCREENSHOTS=1 nox -s browser"
        assert picture.stat().st_size < MOST_BYTES, picture.name


def take(place: Place, open_window: OpenWindow) -> None:
    """Take the pictures of the documentation."""
    connectors, submitter = place.world.connectors(), place.world.submitter()
    runs = production()
    others = [build(component(f"vpc::{n}"), component(f"network::{n}"), id=f"staging-{n}") for n in (7, 8, 9)]
    fails = build(failing("vpc::1", "VpcLimitExceeded: five are allowed in this region"), id="review-311")
    submitter.accepted(runs, fails, *others)
    submitter.failed(fails)
    for one in others:
        submitter.done(one)
    page = open_window(place.url, height=720)
    log_in(page, place)
    IMAGES.mkdir(exist_ok=True)
    page.wait_for_timeout(1_500)
    connectors.release("vpc")
    connectors.await_requests(runs["id"], "instance::db-1")
    page.wait_for_timeout(1_500)
    page.goto(place.url)
    expect(page.get_by_role("row").filter(has_text=runs["id"])).to_contain_text("running")
    page.screenshot(path=IMAGES / "page-builds.png")
    for view in VIEWS:
        of = others[0]["id"] if view == "report" else runs["id"]
        page.goto(place.address(of, view) + ("?component=instance%3A%3Adb-1" if view == "graph" else ""))
        expect(page.get_by_text("Loading")).to_have_count(0)
        page.wait_for_timeout(1_200)
        page.screenshot(path=IMAGES / f"page-{view}.png")
