"""``scheduler simulate``: connectors that answer for any type and provider."""

import sys
from functools import partial
from typing import Annotated

import trio

from scheduler.bus import Bus
from scheduler.commands.asking import option
from scheduler.commands.checking import read_checked
from scheduler.commands.completers import build_files
from scheduler.commands.content_flags import CONTENT_DEFAULTS
from scheduler.commands.flags import (
    BROKER_DEFAULTS,
    QUIET_LOG_DEFAULTS,
    BrokerFlags,
    QuietLogFlags,
    settings_of,
)
from scheduler.commands.reaching import reach
from scheduler.commands.saying import say
from scheduler.commands.session import configure_log, run_async, until_signal, with_parts
from scheduler.commands.simulator_flags import (
    SIMULATOR_DEFAULTS,
    BehaviourFile,
    SimulatorFlags,
    inventing,
    scripted,
)
from scheduler.local.simulator import QUEUE, VERBS, Behaviour, Simulator
from scheduler.text import seconds

_INTERVAL = 1.0


def simulate(
    *,
    build: Annotated[
        str | None, option("Invent what the references of the build in this file ask for.", build_files)
    ] = None,
    behaviour: BehaviourFile = None,
    connectors: SimulatorFlags = SIMULATOR_DEFAULTS,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Answer as connectors of every type and provider."""
    settings = reach(settings_of(broker, log), aloud=True)
    conduct = scripted(connectors.behaviour(), behaviour)
    if conduct is None:
        return 1
    if build is not None:
        checked = read_checked(build, settings, None, CONTENT_DEFAULTS)
        if checked is None:
            return 1
        conduct = inventing(conduct, checked.prepared)
    configure_log(settings)
    job = partial(_simulate, conduct)
    code = run_async(partial(until_signal, partial(with_parts, settings, None, job), lambda: None))
    # Only a signal ends it.
    return 0 if code > 128 else code


async def _simulate(behaviour: Behaviour, bus: Bus) -> int:
    simulator = Simulator(bus, behaviour)
    async with trio.open_nursery() as nursery:
        await nursery.start(simulator.run, name="simulator")
        say(f"answering on {' '.join(f'*.{verb}.*' for verb in VERBS)} (queue group {QUEUE})")
        spread = f" ± {behaviour.jitter:g}" if behaviour.jitter else ""
        rules = ", if no rule says otherwise" if behaviour.script else ""
        say(
            f"after {behaviour.latency:g}{spread} s; {behaviour.failure_rate:.0%} fail{rules}; Ctrl-C ends it"
        )
        try:
            await _report(simulator)
        finally:
            _line(simulator, 0.0, last=True)
    return 0


async def _report(simulator: Simulator) -> None:
    """Print the counts every second: always in a terminal, elsewhere only if they changed."""
    began, before = trio.current_time(), 0
    while True:
        await trio.sleep(_INTERVAL)
        answered = simulator.counts.completed + simulator.counts.errored
        rate = (answered - before) / _INTERVAL
        if sys.stdout.isatty():
            sys.stdout.write(f"\r\x1b[K{seconds(trio.current_time() - began):>7}  {_counts(simulator, rate)}")
            sys.stdout.flush()
        elif rate:
            _line(simulator, rate)
        before = answered


def _line(simulator: Simulator, rate: float, *, last: bool = False) -> None:
    start = "\r\x1b[K" if sys.stdout.isatty() else ""
    say(start + ("answered " if last else "") + _counts(simulator, rate, last=last))


def _counts(simulator: Simulator, rate: float, *, last: bool = False) -> str:
    counts = simulator.counts
    parts = [f"{counts.completed:,} done", f"{counts.errored:,} errored"]
    if counts.ignored:
        parts.append(f"{counts.ignored:,} ignored")
    if not last:
        parts += [f"{simulator.at_work:,} at work", f"{rate:,.0f}/s"]
    return "  ".join(parts)
