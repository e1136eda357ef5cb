"""The page of builds, and that of one: what is seen, live."""

import re

from integration.builds import build, chain, component, failing, held
from playwright.sync_api import Locator, Page, expect

from browser.conftest import OpenPlace, OpenWindow, Place

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "a' onmouseover='alert(1)",
    "${alert(1)}&lt;b&gt;",
]


def row(page: Page, build_id: str) -> Locator:
    """The row of a build."""
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=build_id, exact=True))


def test_builds_are_listed_and_opened(place: Place, open_window: OpenWindow) -> None:
    """One that runs, one that is done and one that failed, each with its state in words."""
    place.world.connectors()
    submitter = place.world.submitter()
    runs, done = chain(held("vpc::1", "go"), component("network::2")), build(component("vpc::1"))
    fails = build(failing("vpc::1", "no room left"))
    submitter.accepted(runs, done, fails)
    submitter.done(done)
    submitter.failed(fails)
    page = open_window(place.url)
    for one, word in ((runs, "running"), (done, "done"), (fails, "failed")):
        expect(row(page, one["id"])).to_contain_text(word)
    page.get_by_role("link", name=runs["id"], exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(runs["id"])
    expect(page.locator("#status")).to_have_text(re.compile("running"))


def test_the_list_is_live(place: Place, open_window: OpenWindow) -> None:
    """A build that is submitted appears, and its state changes, without anybody touching the page."""
    connectors, submitter = place.world.connectors(), place.world.submitter()
    page = open_window(place.url)
    expect(page.locator("#empty")).to_contain_text("No builds yet")
    one = build(held("vpc::1", "go"))
    submitter.accepted(one)
    line = row(page, one["id"])
    expect(line).to_contain_text("running")
    connectors.release("go")
    expect(line).to_contain_text("done")
    expect(line).to_contain_text("100 %")


def test_builds_are_filtered_and_searched(place: Place, open_window: OpenWindow) -> None:
    """By state and by a part of the id; the address keeps what was chosen."""
    place.world.connectors()
    submitter = place.world.submitter()
    done, fails = build(component("vpc::1"), id="blue-1"), build(failing("vpc::1", "no"), id="green-2")
    submitter.accepted(done, fails)
    submitter.done(done)
    submitter.failed(fails)
    page = open_window(place.url)
    links = page.locator("#builds a")
    expect(links).to_have_count(2)
    page.get_by_label("Failed").check()
    expect(links).to_have_text(["green-2"])
    page.get_by_label("All").check()
    page.get_by_label("Search builds").fill("blue")
    expect(links).to_have_text(["blue-1"])
    expect(page).to_have_url(re.compile(r"\?search=blue$"))
    page.reload()
    expect(links).to_have_text(["blue-1"])
    page.get_by_label("Search builds").fill("nowhere")
    expect(page.locator("#empty")).to_contain_text("No build matches")


def test_a_store_without_a_list_of_ended_builds_is_told_of(
    place: Place, open_place: OpenPlace, open_window: OpenWindow
) -> None:
    """Otherwise a build would seem to have vanished."""
    note = "Builds that have ended are not listed"
    assert not open_window(place.url).get_by_text(note).is_visible()
    expect(open_window(open_place("--store=memory").url).get_by_text(note)).to_be_visible()


def test_a_filtered_list_is_live(place: Place, open_window: OpenWindow) -> None:
    """What comes later and fits is shown, and what does not fit is not."""
    connectors, submitter = place.world.connectors(), place.world.submitter()
    page = open_window(f"{place.url}?state=active&search=blue")
    expect(page.locator("#empty")).to_contain_text("No build matches")
    submitter.accepted(build(held("vpc::1", "go"), id="blue-1"), build(held("vpc::1", "never"), id="green-2"))
    links = page.locator("#builds a")
    expect(links).to_have_text(["blue-1"])
    connectors.release("go")
    expect(links).to_have_count(0)


def test_all_builds_can_be_listed(place: Place, open_window: OpenWindow) -> None:
    """Those beyond the ones that the stream tells of are asked for."""
    place.world.connectors()
    place.world.submitter().accepted(*[build(held("vpc::1", "never"), id=f"b-{n:03}") for n in range(205)])
    page = open_window(place.url)
    links = page.locator("#builds a")
    expect(links).to_have_count(200)
    page.get_by_role("button", name="Show more").click()
    expect(links).to_have_count(205)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()


def test_a_build_is_live(place: Place, open_window: OpenWindow) -> None:
    """Counts and what runs change as it happens, and so does the sentence for those who hear the page."""
    connectors, submitter = place.world.connectors(), place.world.submitter()
    one = build(
        held("vpc::1", "one"), held("vpc::2", "two"), component("network::3"), edges="vpc::1 network::3"
    )
    submitter.accepted(one)
    page = open_window(place.address(one["id"]))
    counts = page.get_by_role("list", name="Components by state")
    expect(counts).to_contain_text(re.compile(r"running\s*2"))
    expect(page.locator("[data-list^=Running]")).to_contain_text("vpc::1")
    connectors.release("one")
    expect(counts).to_contain_text(re.compile(r"completed\s*2"))
    connectors.release("two")
    expect(page.locator("#status")).to_contain_text("done")
    expect(page.locator("#told")).to_contain_text("100 % settled")
    expect(page).to_have_title(re.compile("^100 %"))


def test_why_is_one_click_away(place: Place, open_window: OpenWindow) -> None:
    """Of a build and of a component, whose address can be shared."""
    place.world.connectors()
    one = chain(held("vpc::1", "never"), component("network::2"))
    place.world.submitter().accepted(one)
    page = open_window(place.address(one["id"], "components", "network::2"))
    panel = page.get_by_role("complementary", name="Component network::2")
    expect(panel).to_contain_text("vpc::1")
    expect(panel.get_by_role("heading", name="Why")).to_be_visible()
    panel.get_by_role("link", name="vpc::1").click()
    expect(page.get_by_role("complementary", name="Component vpc::1")).to_contain_text("running")
    expect(page).to_have_url(re.compile(r"/components/vpc%3A%3A1$"))
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Why?").click()
    expect(page.locator(".why")).to_contain_text("vpc::1")


def test_components_are_searched_and_filtered(place: Place, open_window: OpenWindow) -> None:
    """By a part of the id and by state, also by a click on a count."""
    place.world.connectors()
    one = build(held("vpc::1", "never"), component("network::2"), component("network::3"))
    place.world.submitter().accepted(one)
    page = open_window(place.address(one["id"], "components"))
    links = page.locator("tbody a")
    expect(links).to_have_count(3)
    page.get_by_label("Search components").fill("network")
    expect(links).to_have_count(2)
    page.get_by_role("button", name=re.compile("running")).click()
    expect(links).to_have_text(["vpc::1"])


def test_events_are_told_as_they_happen(place: Place, open_window: OpenWindow) -> None:
    """The last first."""
    connectors = place.world.connectors()
    one = chain(held("vpc::1", "go"), component("network::2"))
    place.world.submitter().accepted(one)
    page = open_window(place.address(one["id"], "events"))
    expect(page.locator("tbody")).to_contain_text("sent")
    connectors.release("go")
    expect(page.get_by_role("row").filter(has_text="completed").filter(has_text="network::2")).to_be_visible()


def test_report_and_plan_have_their_pages(place: Place, open_window: OpenWindow) -> None:
    """The report when there is one, and what was predicted beside what happened."""
    place.world.connectors()
    one, submitter = chain(component("vpc::1"), component("network::2")), place.world.submitter()
    submitter.accepted(one)
    submitter.done(one)
    page = open_window(place.address(one["id"], "report"))
    entry = page.locator("details").filter(has_text="change network::2")
    entry.locator("summary").click()
    expect(entry.locator("pre")).to_contain_text('"_state": "completed"')
    page.get_by_role("link", name="Plan").click()
    expect(page.get_by_role("heading", name="The predicted critical path")).to_be_visible()
    expect(page.locator("tbody").first).to_contain_text("network::2")


def test_hostile_texts_are_text(place: Place, open_window: OpenWindow) -> None:
    """Markup in ids, names and errors is shown, and runs nowhere."""
    place.world.connectors()
    submitter = place.world.submitter()
    changes = [failing(f"vpc::{text}", text) for text in HOSTILE]
    one = build(*changes, name=HOSTILE[1])
    submitter.accepted(one)
    submitter.failed(one)
    page = open_window(place.url)
    expect(page.locator("#builds")).to_contain_text(HOSTILE[1])
    page.get_by_role("link", name=one["id"]).click()
    expect(page.locator("#facts")).to_contain_text(HOSTILE[1])
    for tab in ("Timeline", "Components", "Events", "Report", "Plan", "Graph"):
        page.get_by_role("link", name=tab, exact=True).click()
        expect(page.locator("#tabs a[aria-current=page]")).to_have_text(tab)
    page.get_by_role("link", name="Components", exact=True).click()
    for text in HOSTILE:
        expect(page.locator("tbody").get_by_text(f"vpc::{text}")).to_be_visible()
    page.locator("tbody").get_by_role("link", name=f"vpc::{HOSTILE[0]}").click()
    expect(page.get_by_role("complementary")).to_contain_text(HOSTILE[0])
    assert page.locator("img[onerror], [onmouseover]").count() == 0


def test_all_stays_below_a_prefix(open_place: OpenPlace, open_window: OpenWindow) -> None:
    """Links, questions and streams, where a proxy serves the page below a path."""
    place = open_place("--web-prefix=/tools/scheduler")
    place.world.connectors()
    one = build(held("vpc::1", "never"))
    place.world.submitter().accepted(one)
    page = open_window(place.url)
    paths: list[str] = []
    page.on("request", lambda request: paths.append(request.url))
    page.get_by_role("link", name=one["id"]).click()
    expect(page.locator("#status")).to_contain_text("running")
    page.get_by_role("link", name="Timeline").click()
    expect(page.get_by_role("application", name="Timeline of 1 component")).to_be_visible()
    assert page.url == place.address(one["id"], "timeline")
    assert paths
    assert all(path.startswith(place.url) for path in paths)


WATCH = """() => {
    window.bare = 0;
    window.looked = 0;
    const look = () => {
        // Called before anything of this frame is painted: what was in sight in the last one.
        const layers = [...document.querySelectorAll(".canvas canvas:not(.overlay)")];
        const shown = layers.filter((one) => !one.hidden);
        const drawn = shown.some((one) => one.width && one.getContext("2d")
            .getImageData(0, 0, one.width, one.height).data.some((value) => value));
        window.looked += 1;
        window.bare += drawn ? 0 : 1;
        requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
}"""


def test_the_graph_stays_in_sight_while_its_place_changes_its_size(
    place: Place, open_window: OpenWindow
) -> None:
    """The board above it grows and shrinks while a build runs: a canvas of another size is empty at first."""
    place.world.connectors()
    one = build(held("vpc::1", "never"), component("network::2"))
    place.world.submitter().accepted(one)
    page = open_window(place.address(one["id"]))
    expect(page.get_by_role("application")).to_be_visible()
    page.wait_for_timeout(500)
    page.evaluate(WATCH)
    for height in (700, 820, 640, 900):
        page.set_viewport_size({"width": 1280, "height": height})
        page.wait_for_timeout(250)
    looked, bare = page.evaluate("[window.looked, window.bare]")
    assert looked > 10
    assert bare == 0


def test_times_are_those_of_the_reader_and_say_so(place: Place, open_window: OpenWindow) -> None:
    """Two who talk about a build may sit in two time zones."""
    place.world.connectors()
    one = build(held("vpc::1", "never"))
    place.world.submitter().accepted(one)
    hours = set()
    for zone in ("Asia/Tokyo", "America/New_York"):
        page = open_window(place.address(one["id"]), timezone_id=zone)
        expect(page.locator("footer")).to_contain_text(f"Times: {zone}")
        figures = page.locator("#figures")
        expect(figures).to_contain_text(re.compile(r"\d\d:\d\d:\d\d"))
        hours.add(re.findall(r"(\d\d):\d\d:\d\d", figures.inner_text())[-1])
    assert len(hours) == 2
