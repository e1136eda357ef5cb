"""Runs a command on Trio until it is done or interrupted, with the parts that it needs.

A command's parts (an embedded broker, the service, simulated connectors) run in its process and end with it.
"""

import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from scheduler.bus import Bus
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.commands.saying import complain
from scheduler.config import Settings
from scheduler.errors import BrokerError, SchedulerError
from scheduler.runtime.logger import Logger, configure_late
from scheduler.runtime.tuning import tune_interpreter

if TYPE_CHECKING:
    from scheduler.local.simulator import Behaviour
    from scheduler.service import Service

_log = Logger()
CONNECT_TIMEOUT = 10.0
"""Seconds to wait for the broker; the service waits for ever."""


def configure_log(settings: Settings) -> None:
    """Configure the log with its first line, or at once if a service will run in this process."""

    def configure() -> None:
        from scheduler.log import configure_logging  # noqa: PLC0415 - it loads structlog

        configure_logging(settings.log_level, settings.log_format)

    if settings.embedded:
        configure()
    else:
        configure_late(settings.log_level, configure)


def run_async(main: Callable[[], Awaitable[int]], *, ours: bool = True) -> int:
    """Run ``main`` on Trio and return its exit code.

    Args:
        main: the command.
        ours: whether all that runs is ours, so that the interpreter can be tuned for it; other code may leave
            cycles behind, which the collector then would not find.

    Raises:
        SchedulerError: raised by ``main``, and taken out of the exception groups of nurseries.
        BrokenPipeError: the reader of our output has gone.
    """
    if ours:
        tune_interpreter()
    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        expected, bugs = group.split((SchedulerError, BrokenPipeError))
        if bugs is not None or expected is None:
            raise
        raise _first(expected) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


async def until_signal(main: Callable[[], Awaitable[int]], say_why: Callable[[], None]) -> int:
    """Run ``main``; SIGINT or SIGTERM cancels it, and the exit code is then 128 plus the signal's number.

    Args:
        main: the command.
        say_why: called after a signal has ended it.
    """
    codes: list[int] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for number in signals:
                    codes.append(128 + number)
                    nursery.cancel_scope.cancel()
                    # A second signal must not wait for any clean-up.
                    signal.signal(number, signal.SIG_DFL)
                    return

            nursery.start_soon(watch, name="signals")
            code = await main()
            codes.append(code)
            nursery.cancel_scope.cancel()
    if codes[0] > 128:
        say_why()
    return codes[0]


@contextmanager
def throwaway(settings: Settings) -> Iterator[Settings]:
    """Yield the settings with a temporary data directory, which no other broker can be using."""
    with tempfile.TemporaryDirectory(prefix="scheduler-", ignore_cleanup_errors=True) as folder:
        yield attrs.evolve(settings, data_dir=Path(folder))


class _Waiting:
    """Tells once that a command waits, while the broker cannot be reached."""

    def __init__(self) -> None:
        self._said = False

    def hear(self, status: str) -> None:
        if not self._said and not status.startswith("connected"):
            complain(f"{status}; waiting for it up to {CONNECT_TIMEOUT:g} s")
        self._said = True


async def with_parts(
    settings: Settings,
    behaviour: "Behaviour | None",
    job: Callable[[Bus], Awaitable[int]],
    tell: Callable[[str], None] = complain,
) -> int:
    """Run ``job`` on a bus, with an embedded broker and scheduler if the settings say so.

    Args:
        settings: how to reach the broker, or that broker and scheduler are embedded.
        behaviour: of simulated connectors in this process; None for no connectors.
        job: called with the bus, returns the exit code.
        tell: tells where the page of an embedded scheduler is; by default on standard error, since the output
            may be JSON.

    Raises:
        BusError: there is no broker, or it refuses the connection.
        BrokerError: the embedded broker does not start.
    """
    async with AsyncExitStack() as stack:
        options = settings.bus
        died: trio.Event | None = None
        if settings.embedded:
            from scheduler.local.announcing import announced  # noqa: PLC0415 - needed only here
            from scheduler.local.broker import open_broker  # noqa: PLC0415 - needed only here

            broker = await stack.enter_async_context(open_broker(settings.data_dir))
            stack.enter_context(announced(broker, serves=False))
            options = BusOptions(servers=(broker.url,), token=broker.token)
            died = broker.died
            if behaviour is None:
                # The one secret that is ever shown: without it no connector could join.
                # On standard error, since the output may be JSON.
                sys.stderr.write(f"connectors can join at {broker.url_with_token}\n")
        # Flags may precede the command, a password among them, and others can see this name.
        if options.origin:
            _log.debug("no broker is configured", used=options.origin)
        command = "".join(word for word in sys.argv[1:2] if not word.startswith("-"))
        options = attrs.evolve(options, name=f"scheduler {command}".strip())
        bus = await stack.enter_async_context(
            open_bus(options, connect_deadline=CONNECT_TIMEOUT, on_status=_Waiting().hear)
        )
        service = await _open_service(stack, settings, bus) if died is not None else None
        async with trio.open_nursery() as nursery:
            if service is not None and died is not None:
                nursery.start_soon(_fail_when, died)
                await nursery.start(service.run, name="scheduler")
                if service.console.page:
                    tell(f"the page is at {service.console.page}")
            if behaviour is not None:
                from scheduler.local.simulator import Simulator  # noqa: PLC0415 - needed only here

                await nursery.start(Simulator(bus, behaviour).run, name="simulator")
            code = await job(bus)
            nursery.cancel_scope.cancel()
    return code


async def _open_service(stack: AsyncExitStack, settings: Settings, bus: Bus) -> "Service":
    """Open what a scheduler in this process stands on, and return it."""
    from scheduler.process import open_store  # noqa: PLC0415 - needed only here
    from scheduler.service import Service  # noqa: PLC0415 - needed only here
    from scheduler.web.opening import open_board  # noqa: PLC0415 - needed only here

    board = await stack.enter_async_context(open_board(settings))
    service = Service(settings, bus, await open_store(settings, bus))
    stack.enter_context(board.showing(service.figures, service.console))
    return service


async def _fail_when(died: trio.Event) -> None:
    await died.wait()
    msg = "the embedded broker died; its log in the data directory says why"
    raise BrokerError(msg)
