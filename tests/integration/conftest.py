"""Fixtures: a world of broker, service, connectors and a client; whatever is left of it is killed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.brokers import NatsServer, nats_server

from integration.harness import Client, Connectors, Scheduler, Submitter


class World:
    """One broker, and what a test starts on it; parts start when they are first asked for."""

    def __init__(self, stack: ExitStack, server: NatsServer) -> None:
        self.server = server
        self._stack = stack

    def client(self, **options: Any) -> Client:
        client = Client(self.server.url, **options)
        self._stack.callback(client.close)
        return client

    def submitter(self) -> Submitter:
        return Submitter(self.client())

    def connectors(self, *subjects: str) -> Connectors:
        connectors = Connectors(self.server.url, *subjects)
        self._stack.callback(connectors.close)
        return connectors

    def scheduler(self, *arguments: str, ready: bool = True, env: dict[str, str] | None = None) -> Scheduler:
        """Start the service; it takes builds on return, where ``ready`` is to be awaited."""
        scheduler = self.started(Scheduler(*arguments, env=env or {"NATS_URL": self.server.url}))
        if ready:
            scheduler.await_log("ready")
        return scheduler

    def started(self, scheduler: Scheduler) -> Scheduler:
        """See to it that a service ends with this world."""
        self._stack.callback(scheduler.close)
        return scheduler

    def command(self, *arguments: str, text: str = "") -> Scheduler:
        """Run a command to its end, with ``text`` as its standard input."""
        command = Scheduler(*arguments, env={"NATS_URL": self.server.url})
        self._stack.callback(command.close)
        command.write(text, end=True)
        command.wait()
        return command


@pytest.fixture
def world() -> Iterator[World]:
    """A broker of the test's own."""
    with ExitStack() as stack:
        yield World(stack, stack.enter_context(nats_server()))


WorldFactory = Callable[..., World]


@pytest.fixture
def start_world() -> Iterator[WorldFactory]:
    """Worlds with settings for the broker: ``start_world({"max_payload": 1024})``."""
    with ExitStack() as stack:

        def start(config: dict[str, Any] | None = None, *, jetstream: bool = False) -> World:
            return World(stack, stack.enter_context(nats_server(config, jetstream=jetstream)))

        yield start


class Site:
    """A world that is complete: service, connectors, and who submits."""

    def __init__(self, world: World, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.world = world
        self.scheduler = world.scheduler(*arguments, env=env)
        self.connectors = world.connectors()
        self.submitter = world.submitter()
        self.client = self.submitter.client


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A complete world that the tests of a module share; at the end the service's log is clean."""
    with ExitStack() as stack:
        site = Site(World(stack, stack.enter_context(nats_server())), "--start-timeout", "1")
        yield site
        site.scheduler.end()
