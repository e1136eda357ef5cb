"""What the commands share: running on Trio until done or interrupted, with the parts that they need.

A command's own parts (an embedded broker, the service, simulated connectors) run in its process and end
with it.
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
from scheduler.runtime.logger import configure_late
from scheduler.runtime.tuning import tune_interpreter

if TYPE_CHECKING:
    from scheduler.local.simulator import Behaviour

CONNECT_TIMEOUT = 10.0
"""Seconds that a command waits for the broker; the service waits for ever."""


def configure_log(settings: Settings) -> None:
    """Configure the log with its first line; at once where a service is to run in this process."""

    def configure() -> None:
        from scheduler.log import configure_logging  # noqa: PLC0415 - it loads structlog

        configure_logging(settings.log_level, settings.log_format)

    if settings.embedded:
        configure()
    else:
        configure_late(settings.log_level, configure)


def run_async(main: Callable[[], Awaitable[int]]) -> int:
    """Run ``main`` on Trio to its exit code.

    Raises:
        SchedulerError: what it raised, out of the groups that nurseries wrap it in.
        BrokenPipeError: nobody reads our output any more.
    """
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
    """Run ``main``; SIGINT or SIGTERM cancels it, and the exit code is then 128 and the signal.

    Args:
        main: what to run.
        say_why: called after a signal has ended it.
    """
    codes: list[int] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for number in signals:
                    codes.append(128 + number)
                    nursery.cancel_scope.cancel()
                    # A second one must not wait for anybody's goodbye.
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
    """The settings with a data directory that is gone afterwards, so that no other broker is in the way."""
    with tempfile.TemporaryDirectory(prefix="scheduler-", ignore_cleanup_errors=True) as folder:
        yield attrs.evolve(settings, data_dir=Path(folder))


class _Waiting:
    """Says once why a command does not get on, while the broker cannot be reached."""

    def __init__(self) -> None:
        self._said = False

    def hear(self, status: str) -> None:
        if not self._said and not status.startswith("connected"):
            complain(f"{status}; waiting for it up to {CONNECT_TIMEOUT:g} s")
        self._said = True


async def with_parts(
    settings: Settings, behaviour: "Behaviour | None", job: Callable[[Bus], Awaitable[int]]
) -> int:
    """Run ``job`` on a bus, with an embedded broker and scheduler where the settings say so.

    Args:
        settings: how to reach the broker, or that one is embedded; the scheduler then is too.
        behaviour: simulated connectors answer in this manner; none where it is None.
        job: gets the bus, gives the exit code.

    Raises:
        BusError: there is no broker, or it does not take us.
        BrokerError: the embedded broker does not start.
    """
    async with AsyncExitStack() as stack:
        options = settings.bus
        died: trio.Event | None = None
        if settings.embedded:
            from scheduler.local.broker import open_broker  # noqa: PLC0415 - only here needed

            broker = await stack.enter_async_context(open_broker(settings.data_dir))
            options = BusOptions(servers=(broker.url,), token=broker.token)
            died = broker.died
            if behaviour is None:
                # The one secret that is ever shown: without it nobody's connectors could join.
                # Beside the output, which may be JSON.
                sys.stderr.write(f"connectors can join at {broker.url_with_token}\n")
        # Flags may stand before the command, a password among them: others can see this name.
        command = "".join(word for word in sys.argv[1:2] if not word.startswith("-"))
        options = attrs.evolve(options, name=f"scheduler {command}".strip())
        bus = await stack.enter_async_context(
            open_bus(options, connect_deadline=CONNECT_TIMEOUT, on_status=_Waiting().hear)
        )
        async with trio.open_nursery() as nursery:
            if died is not None:
                nursery.start_soon(_fail_when, died)
                from scheduler.process import open_store  # noqa: PLC0415 - only here needed
                from scheduler.service import serve  # noqa: PLC0415 - only here needed

                store = await open_store(settings, bus)
                await nursery.start(serve, settings, bus, store, name="scheduler")
            if behaviour is not None:
                from scheduler.local.simulator import Simulator  # noqa: PLC0415 - only here needed

                await nursery.start(Simulator(bus, behaviour).run, name="simulator")
            code = await job(bus)
            nursery.cancel_scope.cancel()
    return code


async def _fail_when(died: trio.Event) -> None:
    await died.wait()
    msg = "the embedded broker died; its log in the data directory says why"
    raise BrokerError(msg)
