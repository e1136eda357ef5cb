"""Fixtures: a real Chromium, and a real scheduler that serves the page."""

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from integration.conftest import World
from integration.harness import DEADLINE, Scheduler
from support.brokers import nats_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

# Sessions that run other tests do not install it; these are not even looked at there.
collect_ignore_glob = [] if find_spec("playwright") else ["test_*.py"]
NAMES = ("chromium", "chromium-browser", "google-chrome")
"""Commands of a browser, as package managers install them."""
TOKEN = "a-token-of-the-tests-that-is-long-enough"
ONLY_ROOT = ["--no-sandbox"] if os.geteuid() == 0 else []
"""Chromium's sandbox does not work for root."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder: they run in a session of their own."""
    for item in items:
        if "browser" in item.path.parent.parts:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(240))


@pytest.fixture(scope="session")
def chromium() -> "Iterator[Browser]":
    """The browser that the package manager has installed."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"NO PAGE WAS TRIED IN A BROWSER: none of {', '.join(NAMES)} is installed")
    from playwright.sync_api import expect, sync_playwright  # noqa: PLC0415 - it may not be installed

    expect.set_options(timeout=DEADLINE * 1_000)
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            # Where trio-asyncio is imported, loops come from it, and belong to Trio's.
            patch.setattr(asyncio, "new_event_loop", asyncio.SelectorEventLoop)
            playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=path, args=ONLY_ROOT)
        yield browser
        browser.close()


class Window:
    """A tab, and what went wrong in it: errors of the script, refusals by the policy, requests elsewhere."""

    def __init__(self, page: "Page") -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", self._on_dialog)
        page.on("console", self._on_console)
        page.on("request", self._on_request)

    def _on_dialog(self, dialog: Any) -> None:
        self.faults.append(f"a dialog of the browser: {dialog.message}")
        dialog.dismiss()

    def _on_console(self, message: Any) -> None:
        # That an answer was an error is told there as well: the page shows it, and tests look at that.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(f"console: {message.text}")

    def _on_request(self, request: Any) -> None:
        if not re.match(r"http://127\.0\.0\.1:\d+/|data:", request.url):
            self.faults.append(f"a request elsewhere: {request.url}")

    def check(self) -> None:
        """Fail if anything went wrong."""
        assert not self.faults


OpenWindow = Callable[..., "Page"]


@pytest.fixture
def open_window(chromium: "Browser") -> Iterator[OpenWindow]:
    """Open a tab with a memory of its own: ``open_window(url, width=360, color_scheme="dark")``."""
    with ExitStack() as stack:
        windows: list[Window] = []

        def open_it(url: str, *, width: int = 1280, height: int = 900, **options: Any) -> "Page":
            context: BrowserContext = chromium.new_context(
                viewport={"width": width, "height": height}, reduced_motion="reduce", **options
            )
            stack.callback(context.close)
            windows.append(Window(context.new_page()))
            page = windows[-1].page
            page.goto(url)
            return page

        yield open_it
        for window in windows:
            window.check()


class Place:
    """A broker, and a scheduler on it whose page can be opened."""

    def __init__(self, world: World, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.world = world
        self.arguments = arguments
        self.env = {"NATS_URL": world.server.url, **(env or {})}
        self.scheduler = self.start("--web=0")

    def start(self, web: str) -> Scheduler:
        """Start a scheduler; its page is served on return."""
        given = any(argument.startswith("--store=") for argument in self.arguments)
        arguments = ("serve", *([] if given else ["--store=jetstream"]), web, *self.arguments)
        scheduler = self.world.scheduler(*arguments, env=self.env)
        self.url: str = scheduler.await_log("the page is served")["address"]
        return scheduler

    def again(self) -> None:
        """Start it again, at the same address, after it has ended."""
        port = self.url.rstrip("/").rpartition(":")[2]
        self.scheduler = self.start(f"--web={port}")

    def address(self, build: str, *more: str) -> str:
        """Address of a page of a build, whose ids need no encoding."""
        return self.url + "/".join(("builds", build, *more))


OpenPlace = Callable[..., Place]


@pytest.fixture
def open_place() -> Iterator[OpenPlace]:
    """Start a scheduler with flags: ``open_place("--web-orders")``; at the end its log is clean."""
    with ExitStack() as stack:
        places: list[Place] = []

        def start(*arguments: str) -> Place:
            world = World(stack, stack.enter_context(nats_server(jetstream=True)))
            places.append(Place(world, *arguments))
            return places[-1]

        yield start
        for place in places:
            place.scheduler.check_log()


@pytest.fixture
def place(open_place: OpenPlace) -> Place:
    """A scheduler whose page everybody on this machine may read."""
    return open_place()


@pytest.fixture
def guarded(open_place: OpenPlace) -> Place:
    """A scheduler that takes orders from those who know the token."""
    return open_place("--web-orders", f"--web-token={TOKEN}")


def log_in(page: "Page", place: Place, name: str = "anna") -> None:
    """Log in at the page."""
    from playwright.sync_api import expect  # noqa: PLC0415 - it may not be installed

    page.goto(f"{place.url}login")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Builds")).to_be_visible()
