"""Which store a service takes, with brokers that have JetStream, have it not, or have it not yet."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.brokers import NatsServer, nats_server

from integration.conftest import World
from integration.harness import Scheduler

pytestmark = pytest.mark.integration

CHOICES = ("jetstream {}", "--store ernest", "--store memory", "--embedded")

WorldFactory = Callable[..., World]


@pytest.fixture
def start() -> Iterator[WorldFactory]:
    """Worlds with or without JetStream."""
    with ExitStack() as stack:

        def start(config: dict[str, Any] | None = None, *, jetstream: bool = False) -> World:
            return World(stack, stack.enter_context(nats_server(config, jetstream=jetstream)))

        yield start


def serve(world: World, *arguments: str, ready: bool = True, **variables: str) -> Scheduler:
    """Start the service without a word about its store, except in ``arguments`` and ``variables``."""
    env = {"NATS_URL": world.server.url, "SCHEDULER_STORE": "", **variables}
    return world.scheduler(*arguments, ready=ready, env=env)


def check_refused(scheduler: Scheduler) -> None:
    """It ended at once, with one line that names the choices."""
    assert scheduler.wait() == 1
    (line,) = (line for line in scheduler.err if not line.startswith("{"))
    assert line.startswith("scheduler: the broker has no JetStream")
    assert all(choice in line for choice in CHOICES), line
    assert not any(entry["level"] == "error" for entry in scheduler.log if "level" in entry)


@pytest.mark.parametrize("arguments", [(), ("--store=auto",), ("--store=jetstream",)])
def test_a_broker_without_jetstream_ends_the_start(start: WorldFactory, arguments: tuple[str, ...]) -> None:
    """The service does not start; its one line says what can be done."""
    check_refused(serve(start(), *arguments, ready=False))


def test_so_it_does_where_something_listens_to_everything(start: WorldFactory) -> None:
    """A monitor on ``>`` keeps the broker from saying so; it is found out all the same."""
    world = start()
    world.client().listen(">")
    check_refused(serve(world, ready=False))


def test_so_does_an_account_without_jetstream(start: WorldFactory) -> None:
    """The broker has it, and our account may not use it."""
    user = {"user": "me", "password": "secret"}
    world = start({"accounts": {"OURS": {"users": [user]}}}, jetstream=True)
    world.server.user_info = "me:secret"
    check_refused(serve(world, ready=False))


def test_so_does_a_question_that_is_not_permitted(start: WorldFactory) -> None:
    """Who may not ask for JetStream is told which permission is missing."""
    permissions = {"publish": {"allow": ["nothing"]}, "subscribe": {"allow": [">"]}}
    user = {"user": "me", "password": "secret", "permissions": permissions}
    world = start({"authorization": {"users": [user]}}, jetstream=True)
    world.server.user_info = "me:secret"
    scheduler = serve(world, ready=False)
    assert scheduler.wait() == 1
    assert "let us publish on $JS.API.INFO" in list(scheduler.err)[-1]


def test_jetstream_is_taken_where_there_is_one(start: WorldFactory) -> None:
    """Nothing needs to be said."""
    scheduler = serve(start({}, jetstream=True))
    scheduler.await_log("ready", store="jetstream")
    scheduler.end()


@pytest.mark.parametrize("jetstream", [False, True])
def test_what_is_chosen_is_taken(start: WorldFactory, *, jetstream: bool) -> None:
    """The memory store by flag, whatever the broker has."""
    scheduler = serve(start({}, jetstream=jetstream), "--store", "memory")
    scheduler.await_log("ready", store="memory")
    scheduler.end()


def cluster_of_two(stack: ExitStack) -> tuple[NatsServer, Callable[[], NatsServer]]:
    """A broker that has no quorum, and a function that starts the one that is missing."""
    # Of three members two are needed; the other two of the first one's routes lead nowhere.
    routes = ["nats://127.0.0.1:1", "nats://127.0.0.1:2"]
    config = {"server_name": "one", "cluster": {"name": "c", "listen": "127.0.0.1:-1", "routes": routes}}
    one = stack.enter_context(nats_server(config, jetstream=True))
    line = next(line for line in one.log.splitlines() if "Listening for route connections" in line)

    def complete() -> NatsServer:
        routes = [f"nats://{line.split()[-1]}", "nats://127.0.0.1:2"]
        config = {"server_name": "two", "cluster": {"name": "c", "listen": "127.0.0.1:-1", "routes": routes}}
        return stack.enter_context(nats_server(config, jetstream=True))

    return one, complete


def test_a_jetstream_without_a_leader_is_waited_for() -> None:
    """That is said once; as soon as the cluster has its quorum, the service goes on."""
    with ExitStack() as stack:
        one, complete = cluster_of_two(stack)
        scheduler = serve(World(stack, one), ready=False)
        scheduler.await_log("waiting for JetStream")
        complete()
        scheduler.await_log("ready")
        assert [entry["event"] for entry in scheduler.log].count("waiting for JetStream") == 1
        scheduler.end()


def test_waiting_for_jetstream_can_be_stopped() -> None:
    """A signal ends it at once, with 0."""
    with ExitStack() as stack:
        one, _ = cluster_of_two(stack)
        scheduler = serve(World(stack, one), ready=False)
        scheduler.await_log("waiting for JetStream")
        assert scheduler.stop()[0] == 0
