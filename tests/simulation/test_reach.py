"""The simulation gets to where faults are: a world in which little goes wrong would prove little."""

from collections import Counter

import pytest

from scheduler.events import Settled
from scheduler.records import decode_record
from simulation.driver import simulate
from simulation.scenario import FAULTS
from simulation.trace import Step

SEEDS = range(500)
"""As many of them are run as it takes."""
WANTED = (
    *sorted(set(FAULTS)),
    *("Withdrawn", "Suspended", "Resumed", "Sent", "Loading", "Released", "Finished", "Reported"),
    *("killed", "lost", "dies", "replies lost", "request unheard", "report left"),
    *("several events in a record", "taken up a second time", "late success kept", "fenced"),
    *("timed out", "failed by a connector", "nobody listened", "outcome unknown"),
    *("read back another's record", "sent again by another process", "sent again by the same process"),
    "answered ('accepted', '')",
    "answered ('rejected', 'running')",
    "answered ('rejected', 'finished')",
)


def _of_a_log(step: Step) -> Counter[str]:
    """What a record of a log shows."""
    record = decode_record(step.detail[2])
    met = Counter(type(event).__name__ for event in record.events)
    met["several events in a record"] += len(record.events) > 1
    met["taken up a second time"] += record.epoch > 2
    for event in record.events:
        body = event.body if isinstance(event, Settled) else {}
        error = str(body.get("error", ""))
        met["timed out"] += error.startswith("timed out")
        met["failed by a connector"] += error.endswith("cannot")
        met["nobody listened"] += error.startswith("no connector")
        met["outcome unknown"] += error.startswith("outcome unknown")
        met["late success kept"] += "adoptable" in body
    return met


@pytest.fixture(scope="module")
def met() -> Counter[str]:
    """How often what was met."""
    met: Counter[str] = Counter()
    for seed in SEEDS:
        if all(met[what] for what in WANTED):
            break
        departures: dict[tuple[str, str], str] = {}
        for step in simulate(seed).trace.steps:
            met[step.kind] += 1
            match step.kind:
                case "fault begins":
                    met[step.detail[0]] += 1
                case "kept" if step.who == "SCHEDULER_LOG":
                    met += _of_a_log(step)
                case "read back":
                    met["read back another's record"] += not step.detail.startswith(f"{step.who}-")
                case "request left":
                    before = departures.get((step.build, step.component))
                    met["sent again by another process"] += before not in {None, step.who}
                    met["sent again by the same process"] += before == step.who
                    departures[step.build, step.component] = step.who
                case "logs":
                    met["fenced"] += "another process has the build" in step.detail
                case "answered":
                    met[f"answered {step.detail[:2]}"] += 1
    return met


@pytest.mark.parametrize("what", WANTED)
def test_it_happens(met: Counter[str], what: str) -> None:
    """In some of a few hundred runs."""
    assert met[what]
