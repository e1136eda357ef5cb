"""No secret of a build shows anywhere: 80 and more, in every kind of place, over all that people see."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import io
import json
from collections.abc import Iterator
from typing import Any

import structlog
from rich.console import Console
from support.canaries import CARRIED, CHOSEN, SUPPLIED, canaries, definition, marks_of, script_of
from support.durable import Plant, until
from support.fakes import JSON, encode, open_service, prepare
from trio.testing import MockClock

from scheduler.client.follow import _shown
from scheduler.client.progress import Progress
from scheduler.client.timeline import read_timeline
from scheduler.client.traces import trace
from scheduler.commands.export import read_out, read_secrets
from scheduler.display import Frame, JsonView, PlainView, TerminalView, render_summary
from scheduler.display.drawing import dot, drawing_of, drawing_of_build, mermaid, svg
from scheduler.display.tables import show_builds, show_components, show_reasons, show_status
from scheduler.display.timeline import show_timeline
from scheduler.jetstream.api import JetStream
from scheduler.log import mask_secrets

CASES = canaries()
SECRETS = [CARRIED, SUPPLIED, CHOSEN, *(case.secret for case in CASES)]


def leaks(shown: str) -> list[str]:
    """The secrets that can be seen in a text."""
    low = shown.lower()
    found = []
    for secret in SECRETS:
        plain, digits, *shifted = marks_of(secret)
        if plain in low or digits in low or any(mark in shown for mark in shifted):
            found.append(next((case.what for case in CASES if case.secret == secret), secret))
    return found


def drawn(progress: Progress, answer: JSON, reasons: list[JSON]) -> Iterator[str]:
    """All that terminals and files show of answers."""
    console = Console(file=io.StringIO(), width=4_000, height=2_000, force_terminal=True, color_system=None)
    show_builds(console, [answer], 0.0)
    show_status(console, answer, progress, 0.0)
    show_components(console, answer, 0.0)
    for reason in reasons:
        show_reasons(console, reason)
    console.print(Frame(progress, 0.0))
    console.print(render_summary(progress, 0.0))
    found = read_timeline(answer)
    show_timeline(console, found, "b1", "errored")
    yield console.file.getvalue()  # type: ignore[attr-defined]
    yield json.dumps(trace(found, "b1"))
    picture = drawing_of(answer, answer["components"])
    yield from (svg(picture), dot(picture), mermaid(picture))


def followed(events: list[JSON], report: JSON, answer: JSON) -> Iterator[str]:
    """What the board, lines and JSON show to who follows the build."""
    for kind in (TerminalView, PlainView, JsonView):
        console = Console(file=io.StringIO(), width=4_000, force_terminal=True, color_system=None)
        progress = Progress("b1", "build.create", 0.0)
        view: Any = kind(progress, console)
        view.start()
        for message in events:
            view.update(progress.apply(message, 0.0), 0.0)
        view.update(progress.snapshot(answer, 0.0), 0.0)
        view.update(progress.finish(_shown(report, progress), 0.0, failed=True), 0.0)
        view.stop()
        yield console.file.getvalue()  # type: ignore[attr-defined]


async def asked(site: Any, verb: str, **fields: Any) -> JSON:
    """The answer to an operator."""
    message = await site.bus.request(f"scheduler.build.{verb}", encode({"id": "b1", **fields}))
    answer: JSON = json.loads(message.data)
    return answer


async def test_no_canary_is_seen(autojump_clock: MockClock) -> None:
    """Logs, events, answers, board, lines, timeline, trace, pictures, exports: none has any of the secrets.

    The report is what was said, and has them.
    """
    assert len(SECRETS) >= 80
    value = definition(CASES)
    surfaces: dict[str, str] = {}
    plant = Plant(script_of(CASES))
    with structlog.testing.capture_logs() as logs:
        async with plant.run() as site:
            assert await site.submit(value) == {"id": "b1", "status": "accepted"}
            await until(lambda: "late" in site.cloud.asked)
            running = await asked(site, "get", components=True, limit=1_000)
            surfaces["while it runs"] = json.dumps(running)
            skipped = await asked(site, "skip", component="late", output={"token": SUPPLIED})
            surfaces["skip"] = json.dumps(skipped)
            await until(lambda: site.reports)
            answer = await asked(site, "get", components=True, graph=True, limit=1_000)
            reasons = [
                await asked(site, "why"),
                *[await asked(site, "why", component=one["id"]) for one in answer["components"]],
            ]
            surfaces["answers"] = json.dumps([answer, reasons, await asked(site, "list", all=True)])
            surfaces["plan"] = json.dumps(await asked(site, "plan", build=value))
            surfaces["retry"] = json.dumps(await asked(site, "retry", component="chosen"))
            await until(lambda: len(site.reports) == 2)
            [(_, report), _] = site.reports
            events = [
                json.loads(one.data)
                for one in site.bus.published
                if one.subject.startswith("scheduler.event.")
            ]
            surfaces["events"] = json.dumps(events)
            lines: list[bytes] = []

            async def put(line: bytes) -> None:
                lines.append(line)

            js = JetStream(site.bus)
            await read_out(js, "b1", put, secrets=await read_secrets(js, "b1"))
            surfaces["export"] = b"\n".join(lines).decode()
        async with plant.run() as again:
            surfaces["after a restart"] = json.dumps(await asked(again, "get", components=True, limit=1_000))
    surfaces["log"] = json.dumps([mask_secrets(None, "", entry) for entry in logs], default=str)
    progress = Progress("b1", "build.create", 0.0)
    progress.snapshot(answer, 0.0)
    for number, shown in enumerate(drawn(progress, answer, reasons)):
        surfaces[f"drawn {number}"] = shown
    for number, shown in enumerate(followed(events, report, answer)):
        surfaces[f"followed {number}"] = shown
    checked = prepare(value)
    picture = drawing_of_build(checked.build, checked.graph)
    surfaces["a picture of the build"] = svg(picture) + dot(picture) + mermaid(picture)
    seen = {name: found for name, shown in surfaces.items() if (found := leaks(shown))}
    assert seen == {}
    assert all(len(shown) > 50 for shown in surfaces.values()), {k: len(v) for k, v in surfaces.items()}
    assert len(leaks(json.dumps(report))) > 60
    # What is not secret can be read.
    assert all(f"c-{number}" in surfaces["events"] for number in range(len(CASES)))
    assert surfaces["events"].count("refused: ") > 50


async def test_no_canary_is_in_a_refusal() -> None:
    """A build that is not taken is refused, logged and planned without the secrets that it has in it."""
    value = definition(CASES)
    for case, one in zip(CASES, value["changes"], strict=False):
        if case.secret.isidentifier():
            one["wrong"] = f"{{{{ {case.secret} }}}} and {{{{ components['{case.secret}'].y }}}}"
            one["_provider"] = f"{case.secret}!"
    async with open_service() as site:
        with structlog.testing.capture_logs() as logs:
            answer = await site.submit(value)
            planned = await asked(site, "plan", build=value)
            await site.publish(value)
    assert answer["status"] == "rejected"
    details = json.dumps(answer)
    submitted = [case for case in CASES if case.submitted and case.secret.isidentifier()]
    assert details.count("***") >= len(submitted)
    # In base64 it stands with something behind it.
    known = {case.what for case in submitted} - {"base64"} | {CHOSEN}
    logged = json.dumps([mask_secrets(None, "", entry) for entry in logs], default=str)
    for shown in (details, json.dumps(planned), logged):
        assert known.isdisjoint(leaks(shown))
