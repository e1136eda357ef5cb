"""Fixtures for every test."""

import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import hypothesis
import pytest
import structlog
from support.brokers import NatsServer
from support.brokers import nats_server as run_nats_server
from support.fake_bus import FakeBus

pytest_plugins = ["support.hangs"]

# Started in the background by some shells, this process ignores it, and so would all that the tests start.
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# How long an example takes says how busy the machine is; what hangs is found by the time of its test.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

ServerFactory = Callable[..., NatsServer]


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    """A fresh nats-server without any settings, on a free port."""
    with run_nats_server() as server:
        yield server


@pytest.fixture
def jetstream_server() -> Iterator[NatsServer]:
    """A fresh nats-server with JetStream on disk (``sync_interval: always``)."""
    with run_nats_server(jetstream=True) as server:
        yield server


@pytest.fixture
def start_nats_server() -> Iterator[ServerFactory]:
    """Start servers with settings: ``start_nats_server({"max_payload": 1024}, jetstream=True)``."""
    with ExitStack() as stack:

        def start(config: dict[str, Any] | None = None, *, jetstream: bool = False) -> NatsServer:
            return stack.enter_context(run_nats_server(config, jetstream=jetstream))

        yield start


@pytest.fixture
def fake_bus() -> FakeBus:
    """An in-memory bus."""
    return FakeBus()


@pytest.fixture(scope="session", autouse=True)
def _no_broker_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep commands from an embedded broker that the user of the tests runs, and theirs out of his data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Have what a command of a test did to the log end with that test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _leftovers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have what an integration test left behind (sockets, tasks, coroutines) warn in that very test."""
    yield
    if request.node.get_closest_marker("integration") is not None:
        gc.collect()
