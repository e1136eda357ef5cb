"""``scheduler timeline BUILD``: when each component ran, and what took the time."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
from attrs import frozen

from scheduler.bus import Bus
from scheduler.client.ask import get_build
from scheduler.client.lenient import text
from scheduler.client.timeline import FINISHED, Span, Timeline, Wait, read_timeline
from scheduler.client.traces import trace as trace_of
from scheduler.commands.asking import Json, option, run_asking, say_json
from scheduler.commands.flags import BROKER_DEFAULTS, QUIET_LOG_DEFAULTS, BrokerFlags, QuietLogFlags
from scheduler.commands.parameters import BuildId
from scheduler.commands.saying import complain

_SLOWEST = 10


def timeline(
    build: BuildId,
    /,
    *,
    trace: Annotated[
        Path | None, option("Write a trace for Perfetto (ui.perfetto.dev) to this file.")
    ] = None,
    behaviour: Annotated[
        Path | None, option("Write its times and failures to this file, for `simulate --behaviour`.")
    ] = None,
    otlp: Annotated[Path | None, option("Write a build that has ended as spans of OpenTelemetry.")] = None,
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Show when each component ran, and what took the time."""
    return run_asking(broker, log, partial(_timeline, build, _Files(trace, behaviour, otlp), json), json=json)


@frozen
class _Files:
    """Files to be written, as far as they are asked for."""

    trace: Path | None
    behaviour: Path | None
    otlp: Path | None


async def _timeline(build: str, files: _Files, json: bool, bus: Bus) -> int:
    answer = await get_build(bus, build, graph=True)
    found = read_timeline(answer)
    status = text(answer.get("status"))
    if files.trace is not None and not _write(
        files.trace, trace_of(found, build), "https://ui.perfetto.dev opens it"
    ):
        return 1
    if files.behaviour is not None:
        from scheduler.local.script import recorded  # noqa: PLC0415 - only here

        if not _write(files.behaviour, recorded(found.spans), "for `scheduler simulate --behaviour`"):
            return 1
    if files.otlp is not None and not _write_otlp(files.otlp, answer, build, status):
        return 1
    if json:
        say_json(_document(found, build, status))
        return 0
    from scheduler.display import Output  # noqa: PLC0415 - it loads rich, for an answer to show
    from scheduler.display.timeline import show_timeline  # noqa: PLC0415

    show_timeline(Output(), found, build, status)
    return 0


def _write_otlp(path: Path, answer: Mapping[str, Any], build: str, status: str) -> bool:
    if status not in FINISHED:
        complain(f"{build} is {status}: --otlp is for builds that have ended; wait for it, or leave that out")
        return False
    from scheduler.client.otlp import lines_of, spans_of  # noqa: PLC0415 - only here

    lines = [msgspec.json.encode(line) for line in lines_of(spans_of(answer, build))]
    return _write_bytes(path, b"\n".join([*lines, b""]), "TracesData of OTLP as JSON, a message in each line")


def _write(path: Path, document: Any, use: str) -> bool:
    return _write_bytes(path, msgspec.json.encode(document), use)


def _write_bytes(path: Path, data: bytes, use: str) -> bool:
    try:
        path.write_bytes(data)
    except OSError as error:
        complain(f"cannot write {str(path)!r}: {error.strerror}")
        return False
    complain(f"written: {path}; {use}")
    return True


def _document(found: Timeline, build: str, status: str) -> dict[str, Any]:
    return {
        "id": build,
        "status": status,
        "began": found.began,
        "ended": found.ended,
        "seconds": found.seconds,
        "waiting": found.waiting,
        "working": found.working,
        "waits": _waits(found.waits),
        "most_at_a_time": found.most,
        "critical_path": [span.component for span in found.path],
        "slowest": [span.component for span in found.slowest(_SLOWEST)],
        "components": [_span(span) for span in found.spans],
    }


def _span(span: Span) -> dict[str, Any]:
    document = {
        "id": span.component,
        "state": span.state,
        "due": span.due,
        "sent": span.sent,
        "ended": span.ended,
        "waited": span.waiting,
        "worked": span.working,
        "waits": _waits({kind: seconds for kind, seconds in span.waits.items() if seconds}),
    }
    if span.before:
        document["attempts"] = [{"sent": sent, "ended": ended} for sent, ended in span.attempts]
    return document


def _waits(waits: Mapping[Wait, float]) -> dict[str, float]:
    return {kind.value: seconds for kind, seconds in waits.items()}
