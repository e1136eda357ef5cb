"""Orders: from those who may, and from nobody else."""

import re

from integration.builds import build, chain, component, failing, held
from playwright.sync_api import expect

from browser.conftest import OpenWindow, Place, log_in


def test_without_the_token_nothing_is_seen_or_ordered(guarded: Place, open_window: OpenWindow) -> None:
    """Every page leads to the login, and an order that is forged is refused; the build runs on."""
    connectors, submitter = guarded.world.connectors(), guarded.world.submitter()
    one = build(held("vpc::1", "go"))
    submitter.accepted(one)
    page = open_window(guarded.address(one["id"]))
    expect(page.get_by_label("Token")).to_be_visible()
    assert page.get_by_text("vpc::1").count() == 0
    status = page.evaluate(
        """async (url) => (await fetch(url, {method: "POST", body: JSON.stringify({order: "cancel"}),
            headers: {"content-type": "application/json"}})).status""",
        f"{guarded.url}api/builds/{one['id']}/orders",
    )
    assert status in {401, 403}
    connectors.release("go")
    submitter.done(one)


def test_a_scheduler_that_takes_no_orders_shows_none(place: Place, open_window: OpenWindow) -> None:
    """Neither buttons nor a way to log in."""
    place.world.connectors()
    one = build(held("vpc::1", "never"))
    place.world.submitter().accepted(one)
    page = open_window(place.address(one["id"]))
    expect(page.locator("#status")).to_contain_text("running")
    assert page.get_by_role("button", name="Pause").count() == 0
    assert page.get_by_role("button", name="Log out").count() == 0


def test_a_wrong_token_is_told(guarded: Place, open_window: OpenWindow) -> None:
    """In words, on the page for it."""
    page = open_window(f"{guarded.url}login")
    page.get_by_label("Token").fill("this-is-certainly-not-the-token")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text(re.compile(r"\w"))


def test_a_build_is_paused_and_resumed_by_name(guarded: Place, open_window: OpenWindow) -> None:
    """After a question; the board says who did it and why, and so do the events."""
    connectors, submitter = guarded.world.connectors(), guarded.world.submitter()
    one = chain(held("vpc::1", "go"), component("network::2"))
    submitter.accepted(one)
    page = open_window(guarded.url)
    log_in(page, guarded)
    page.get_by_role("link", name=one["id"]).click()
    page.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("a look at <b>the</b> network")
    dialog.get_by_role("button", name="Pause").click()
    expect(dialog.get_by_role("heading", name="Done")).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator("#status")).to_contain_text("paused")
    expect(page.locator("#alert")).to_contain_text("Paused by anna")
    expect(page.locator("#alert")).to_contain_text("a look at <b>the</b> network")
    page.get_by_role("link", name="Events").click()
    expect(page.get_by_role("row").filter(has_text="anna").first).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    connectors.release("go")
    expect(page.locator("#status")).to_contain_text("done")


def test_a_gate_is_approved(guarded: Place, open_window: OpenWindow) -> None:
    """From the board."""
    guarded.world.connectors()
    one = chain(component("gate::look", action="approve"), component("vpc::1"))
    guarded.world.submitter().accepted(one)
    page = open_window(guarded.url)
    log_in(page, guarded)
    page.get_by_role("link", name=one["id"]).click()
    page.locator("[data-list='Awaits approval']").get_by_role("button", name="Approve").click()
    page.get_by_role("dialog").get_by_role("button", name="Approve").click()
    expect(page.locator("#status")).to_contain_text("done")


def test_what_failed_is_skipped_with_an_output(guarded: Place, open_window: OpenWindow) -> None:
    """An output that is no object is refused before it is sent."""
    guarded.world.connectors()
    one = build(failing("vpc::1", "no room"), held("disk::2", "never"))
    guarded.world.submitter().accepted(one)
    page = open_window(guarded.url)
    log_in(page, guarded)
    page.goto(guarded.address(one["id"], "components", "vpc::1"))
    panel = page.get_by_role("complementary")
    expect(panel).to_contain_text("no room")
    panel.get_by_role("button", name="Skip").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Output").fill("[1]")
    dialog.get_by_role("button", name="Skip").click()
    expect(dialog.get_by_role("alert")).to_contain_text("an object such as")
    dialog.get_by_label("Output").fill('{"vpc_aws_id": "vpc-1"}')
    dialog.get_by_role("button", name="Skip").click()
    expect(dialog.get_by_role("heading", name="Done")).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    expect(panel).to_contain_text(re.compile("completed|skipped"))
