"""The service as a process: its signals, its broker, its store, and its exit code."""

import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial

import attrs
import structlog
import trio
from attrs import frozen

from scheduler import __version__
from scheduler.bus import Bus, Listener, Presence
from scheduler.bus.beside import open_beside
from scheduler.bus.listener import open_listener
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.bus.presence import open_presence
from scheduler.config import Settings
from scheduler.errors import BrokerError, BusError, StoreError
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.capturing import layout_of
from scheduler.local.announcing import announced
from scheduler.local.broker import open_broker
from scheduler.recovery.crash_loops import record_hang
from scheduler.runtime.watchdog import Watchdog
from scheduler.service import Service, Stopping
from scheduler.stores import Store
from scheduler.stores.absence import await_jetstream
from scheduler.stores.ernest import ErnestStore
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.memory import MemoryStore
from scheduler.tracing.opening import open_tracer
from scheduler.web.opening import open_board
from scheduler.web.systemd import keep_told, open_sd_notify, watchdog_of

_log = structlog.get_logger()

_RECORDING = 3.0
"""Seconds to put a build on record, connecting included."""
_QUESTIONS_AT_ONCE = 32
"""Questions handled before other tasks have a turn: they may come by the hundred thousand."""
_SHARED_AT_ONCE = 64
"""Replies on shared subjects handled before other tasks have a turn: fewer than on reply subjects, as those
have to wait for them."""
_BUILDS_AT_ONCE = 400
"""Builds handled before other tasks have a turn: about 5 ms. They wait for their turn in
`scheduler.supervision.admission`, and only there no sender waits for another."""


async def open_store(settings: Settings, bus: Bus) -> Store:
    """Open the store that the settings name.

    The store in JetStream is for ``auto`` as well as for ``jetstream``. While JetStream does not answer, or
    has no leader, it is awaited without limit. No stream is made here: the service does that once it is to
    work.

    Raises:
        UnsupportedServer: it needs JetStream, and there is none; the message names the choices.
        BusError: the bus was closed.
    """
    if settings.store == "ernest":
        _log.info(
            "how references are read; an Ernest installation needs templates=ernest, unresolved=keep",
            templates=settings.templates.value,
            unresolved=settings.unresolved.value,
        )
        return ErnestStore(bus, store_timeout=settings.store_timeout)
    if settings.store == "memory":
        return MemoryStore()
    await await_jetstream(bus)
    return JetStreamStore(
        bus,
        instance=f"{settings.name}-{secrets.token_hex(4)}",
        grace=settings.broker_grace,
        layout=layout_of(settings),
        lays=True,
    )


async def run_service(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT.

    The first signal ends the service in order: within ``grace`` and two seconds. A second one cancels
    everything at once.

    Returns:
        The exit code: 0, or 128 and the number of the second signal.

    Raises:
        BrokerError: the embedded broker does not start, or died.
        BusError: the broker refuses us, or lacks something that the store needs.
        PortUnusable: the port for metrics and health cannot be listened on.
    """
    signals = _Signals()
    tracer = open_tracer(os.environ, name=settings.name, version=__version__)
    with Watchdog() as watchdog, open_sd_notify() as notify:
        async with open_board(settings) as board, trio.open_nursery() as nursery:
            nursery.start_soon(watchdog.beat)
            nursery.start_soon(signals.obey, watchdog.signals(), nursery.cancel_scope)
            if notify is not None:
                nursery.start_soon(keep_told, notify, board, watchdog_of())
            async with _open_connections(settings, watchdog) as to:
                if settings.embedded and board.page:
                    sys.stdout.write(f"page: {board.page}\n")
                    sys.stdout.flush()
                store = await open_store(settings, to.bus)
                service = Service(
                    settings,
                    to.bus,
                    store,
                    listener=to.listener,
                    presence=to.presence,
                    asked=to.asked,
                    submitted=to.submitted,
                    shared=to.shared,
                    collects=True,
                    stopping=signals.stopping,
                    tracer=tracer,
                )
                shown = board.showing(service.figures, service.console)
                with _recording_hangs(watchdog, to.options, store), shown:
                    await service.run()
            nursery.cancel_scope.cancel()
    return signals.code


class _Signals:
    """Handler of SIGTERM and SIGINT."""

    def __init__(self) -> None:
        self.stopping = Stopping()
        self.code = 0
        """Exit code."""

    async def obey(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """Stop the service at the first signal, cancel ``scope`` at the second one, and return."""
        first = await anext(signals)
        if self.stopping.ready:
            _log.info("stopping", signal=signal.Signals(first).name)
            self.stopping.asked.set()
        else:
            # There is nothing to end in order yet, but perhaps a lease.
            _log.info("stopped before it was ready", signal=signal.Signals(first).name)
            if self.stopping.give_up is not None:
                await self.stopping.give_up()
            scope.cancel()
        second = await anext(signals)
        _log.warning("stopping at once", signal=signal.Signals(second).name)
        self.code = 128 + second
        scope.cancel()


@frozen
class _Connections:
    """Connections to the broker."""

    options: BusOptions
    """Address and credentials."""
    bus: Bus
    listener: Listener
    presence: Presence
    asked: Bus
    """Connection for questions."""
    submitted: Bus
    """Connection for builds."""
    shared: Bus
    """Connection for replies on subjects that all connectors share."""


@asynccontextmanager
async def _open_connections(settings: Settings, watchdog: Watchdog) -> AsyncIterator[_Connections]:
    """Open the connections to the broker that the settings name, or to an embedded one."""
    async with AsyncExitStack() as stack:
        options = attrs.evolve(settings.bus, name=f"scheduler {settings.name}")
        if settings.embedded:
            broker = await stack.enter_async_context(open_broker(settings.data_dir))
            options = BusOptions(servers=(broker.url,), token=broker.token, name=options.name)
            stack.enter_context(announced(broker, serves=True))
            # With its token, so that connectors on this machine can connect.
            sys.stdout.write(f"broker: {broker.url_with_token}\n")
            sys.stdout.flush()
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(_fail_when_dead, broker.died)
            stack.callback(nursery.cancel_scope.cancel)
        bus = await stack.enter_async_context(open_bus(options))
        listener = await stack.enter_async_context(open_listener(bus, options))
        presence = await stack.enter_async_context(open_presence(bus, options, watchdog.is_silent))
        asked = await stack.enter_async_context(open_beside(bus, options, "questions", _QUESTIONS_AT_ONCE))
        submitted = await stack.enter_async_context(open_beside(bus, options, "builds", _BUILDS_AT_ONCE))
        shared = await stack.enter_async_context(open_beside(bus, options, "shared replies", _SHARED_AT_ONCE))
        yield _Connections(options, bus, listener, presence, asked, submitted, shared)


def _recording_hangs(watchdog: Watchdog, options: BusOptions, store: Store) -> AbstractContextManager[None]:
    """Record builds that the process hangs over, where the store has a place for that."""
    if isinstance(store, JetStreamStore):
        return watchdog.recording(partial(_record_hang, options))
    return nullcontext()


def _record_hang(options: BusOptions, build: str) -> None:
    """Record that this process hangs over a build; runs in a thread other than the loop's."""

    async def record() -> None:
        with trio.fail_after(_RECORDING):
            async with open_bus(options, connect_deadline=_RECORDING) as bus:
                await record_hang(JetStream(bus), build)

    try:
        trio.run(record)
    except (BusError, StoreError, trio.TooSlowError) as error:
        _log.error("it was not put on record that the process hung", build=build, why=str(error))
    else:
        _log.error("it is on record that the process hung over this build", build=build)


async def _fail_when_dead(died: trio.Event) -> None:
    await died.wait()
    msg = "the embedded broker died; its log in the data directory says why"
    raise BrokerError(msg)
