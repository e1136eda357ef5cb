"""The graph and the timeline of 10,000 components: what a frame costs, and what is kept."""

import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from integration.conftest import World
from integration.harness import Scheduler
from playwright.sync_api import Page, expect
from support.brokers import nats_server

from browser.conftest import OpenWindow, Place
from browser.tracing import heap, traced
from scheduler.local.generate import generate

pytestmark = pytest.mark.alone

SIZE = 10_000
MOST_FRAME = 10.0
"""Milliseconds of script and drawing that a frame may take, at the 95th percentile."""
MOST_HEAP = 60.0
"""MiB that the page may keep of 10,000 components."""
BUILD = f"demo-layered-{SIZE}"


@pytest.fixture(scope="module")
def large() -> Iterator[Place]:
    """A scheduler that runs a build of 10,000 components, for minutes."""
    with ExitStack() as stack:
        server = stack.enter_context(nats_server({"max_payload": 8 << 20}, jetstream=True))
        place = Place(World(stack, server))
        simulator = Scheduler("simulate", "--latency", "6s", env={"NATS_URL": place.world.server.url})
        place.world.started(simulator)
        place.world.submitter().accepted(generate(SIZE))
        yield place


def stage(page: Page) -> tuple[float, float]:
    """Wait until a canvas is drawn; returns the middle of it."""
    canvas = page.get_by_role("application")
    expect(canvas).to_be_visible()
    page.wait_for_timeout(1_500)
    box = canvas.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def travel(page: Page, x: float, y: float) -> None:
    """Zoom into the drawing, move over it, and zoom out again."""
    page.mouse.move(x, y)
    for _ in range(25):
        page.mouse.wheel(0, -120)
        page.wait_for_timeout(30)
    page.mouse.down()
    for step in range(40):
        page.mouse.move(x + step * 8, y + step * 3)
        page.wait_for_timeout(16)
    page.mouse.up()
    for _ in range(30):
        page.mouse.wheel(0, 120)
        page.wait_for_timeout(30)


@pytest.mark.parametrize("view", ["graph", "timeline"])
def test_a_frame_is_short(large: Place, open_window: OpenWindow, view: str) -> None:
    """While 10,000 components are zoomed and moved, and their states change."""
    page = open_window(large.address(BUILD, view))
    expect(page.locator("#status")).to_contain_text("running")
    x, y = stage(page)
    frames = traced(page, lambda: travel(page, x, y))
    assert len(frames) > 40
    p95 = frames.percentile(0.95)
    print(f"{view}: {len(frames)} frames, p50 {frames.percentile(0.5):.1f} ms, p95 {p95:.1f} ms")
    assert p95 <= MOST_FRAME


def test_the_memory_is_bounded(large: Place, open_window: OpenWindow) -> None:
    """Going from view to view keeps nothing of the one before."""
    page = open_window(large.address(BUILD, "graph"))
    stage(page)
    kept = []
    for _ in range(3):
        for name in ("Timeline", "Components", "Events", "Graph"):
            page.get_by_role("link", name=name, exact=True).click()
            page.wait_for_timeout(700)
        kept.append(heap(page))
    print(f"heap: {', '.join(f'{one:.1f}' for one in kept)} MiB")
    assert max(kept) < MOST_HEAP
    assert kept[-1] < kept[0] * 1.3 + 2


def test_a_component_is_found_in_the_graph(large: Place, open_window: OpenWindow) -> None:
    """By its name, and then by the keys; its address can be shared."""
    page = open_window(large.address(BUILD, "graph"))
    stage(page)
    search = page.get_by_label("Find in the graph")
    search.fill("node-01234")
    expect(page.get_by_text("1 match", exact=True)).to_be_visible()
    search.press("Enter")
    panel = page.get_by_role("complementary", name=re.compile("node-01234"))
    expect(panel).to_be_visible()
    page.get_by_role("application").press("ArrowRight")
    expect(panel).to_be_hidden()
    shown = page.get_by_role("complementary").get_by_role("heading", level=2).inner_text()
    assert shown.endswith(page.url.rpartition("node-")[2])
    page.get_by_role("application").press("Escape")
    expect(page.get_by_role("complementary")).to_be_hidden()
