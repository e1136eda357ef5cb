"""Random input for intake, replies and templates: refused or taken, quickly, and never anything else.

A few hundred rounds run with the ordinary tests; `nox -s fuzz` goes on for a minute. A failure names the seed
of its round, and `FUZZ_SEED=<seed>` begins with that one.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import msgspec
import pytest

from scheduler.definition.limits import DEFAULT_LIMITS
from scheduler.definition.model import Action, Change, State
from scheduler.definition.template import Found, OnUnresolved, Scope, Templates, compile_change
from scheduler.definition.template.needs import Needs
from scheduler.definition.validation import read_build
from scheduler.errors import InvalidBuild, InvalidJSON, TemplateError
from scheduler.plan import Plan, Request, ending
from scheduler.plan.outcome import read_head, read_reply
from scheduler.plan.summary import report_of

SLOWEST = 2.0
"""Seconds that any one round may take on a busy machine; a denial of service takes minutes."""

EXAMPLES = [
    path.read_bytes()
    for path in (resources.files("scheduler") / "examples").iterdir()
    if path.name.endswith(".json")
]
NASTY = (
    b"null", b"[]", b"{}", b'""', b"-0", b"1e400", b"NaN", b"Infinity", b"\xff", b"\x00", b"\\ud800", b"{{",
    b"}}", b"$(", b")", b"[" * 70, b"9" * 400, b"\r\n", b" ", b"*", b">", b".", b"start", b"end",
    b'"_state":"completed",', b"$(components.#)", b"{{ components }}", b"{{ component.name }}",
    b'"_raw":["name"],', b"\xed\xa0\x80",
)  # fmt: skip
WORDS = (
    "{{", "}}", "$(", ")", "components", "component", "build", ".", "#", "[", "]", '"', "'", "\\",
    "|", "default", "upper", "join", "(", "*", "?", "==", "%", "~", "+", "-", "if", "else",
    "is", "defined", "not", "0",
    "1" * 30, "vpc::a", "_component_id", "name", " ", "\n",
    "\x00", "é", "\U0001f600", "x" * 50, "{%", "%}", "{#",
    "range", "__class__", "[0]", "[:3]", "{", "}",
    ",", "'a'", "tags", "friends.#.first", '#[_component_id="vpc::a"]',
)  # fmt: skip


def seeds() -> Iterator[int]:
    """A seed for each round, for as long as asked."""
    seed = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(2**32)))
    seconds = float(os.environ.get("FUZZ_SECONDS", "0"))
    until = time.monotonic() + seconds
    count = 0
    while count < 300 or time.monotonic() < until:
        yield seed + count
        count += 1


def check(attempt: Callable[[random.Random], None]) -> None:
    """Run rounds of an attempt, each within its time."""
    for seed in seeds():
        began = time.perf_counter()
        try:
            attempt(random.Random(seed))
        except BaseException as error:
            error.add_note(f"FUZZ_SEED={seed}")
            raise
        took = time.perf_counter() - began
        assert took < SLOWEST, f"{took:.1f} s, FUZZ_SEED={seed}"


def mutate(data: bytes, source: random.Random) -> bytes:
    """Some bytes replaced, removed, repeated, or made nasty."""
    text = bytearray(data)
    for _ in range(source.randint(1, 8)):
        at = source.randrange(len(text) + 1)
        match source.randrange(5):
            case 0:
                text[at:at] = source.choice(NASTY)
            case 1:
                del text[at : at + source.randint(1, 40)]
            case 2:
                text[at : at + 1] = bytes([source.randrange(256)])
            case 3:
                piece = text[at : at + source.randint(1, 200)]
                text[at:at] = piece
            case _:
                other = source.randrange(len(text) + 1)
                text[at : at + 10], text[other : other + 10] = text[other : other + 10], text[at : at + 10]
    return bytes(text)


def reshape(value: Any, source: random.Random) -> Any:
    """The same document with some values replaced by others of another shape."""
    if source.random() < 0.02:
        return source.choice(
            [None, 0, -1, 10**40, 1.5, True, "", "vpc", "start", [], {}, [[]], {"_state": 1}]
        )
    if isinstance(value, dict):
        return {key: reshape(inner, source) for key, inner in value.items() if source.random() > 0.01}
    if isinstance(value, list):
        kept = [reshape(inner, source) for inner in value]
        return kept * 2 if source.random() < 0.02 else kept
    if isinstance(value, str) and source.random() < 0.1:
        return "".join(source.choices(WORDS, k=source.randint(1, 12)))
    return value


def submission(source: random.Random) -> bytes:
    """A build that is nearly one of the examples."""
    data = source.choice(EXAMPLES)
    if source.random() < 0.5:
        return mutate(data, source)
    return msgspec.json.encode(reshape(msgspec.json.decode(data), source))


def walk(plan: Plan, source: random.Random) -> None:
    """Drive a plan to its end with random replies."""
    while not plan.state.over:
        progress = False
        for vertex in plan.phases.unsettled():
            ready = all(plan.phases[one].name == "COMPLETED" for one in plan.graph.dependencies[vertex])
            if plan.state.halted or not ready:
                continue
            progress = True
            step = plan.begin(vertex)
            if not isinstance(step, Request):
                continue
            plan.sent(vertex)
            reply = reshape({**msgspec.json.decode(step.body), "_state": "completed"}, source)
            data = msgspec.json.encode(reply)
            try:
                outcome = read_reply(data, source.choice(["done", "error", "done"]))
            except InvalidJSON:
                outcome = read_reply(step.body, "error")
            assert outcome is not None
            plan.settle(step, outcome)
        if not progress:
            break
    ending.finish(plan)
    b"".join(report_of(plan).chunks())


def said(reason: str) -> None:
    """A refusal has a reason."""
    assert reason


def attempt_build(source: random.Random) -> None:
    """Read a build; if it is taken, run it."""
    mode = source.choice(list(Templates))
    unresolved = source.choice(list(OnUnresolved))
    try:
        prepared = read_build(submission(source), templates=mode, unresolved=unresolved)
    except InvalidBuild as refusal:
        said(str(refusal))
        return
    walk(Plan(prepared), source)


def attempt_reply(source: random.Random) -> None:
    """Read a reply."""
    data = mutate(
        b'{"service":"b","_component_id":"vpc::a","_state":"completed","error":null,"n":[1,{"a":2}]}', source
    )
    for read in (
        read_head,
        lambda bytes_: read_reply(bytes_, None),
        lambda bytes_: read_reply(bytes_, "done"),
    ):
        try:
            read(data)
        except InvalidJSON as error:
            said(str(error))


class Everything(Scope):
    """A scope in which a few things can be found."""

    build: dict[str, Any] = {"id": "b", "name": "n", "options": {"x": [1, 2, {"y": "z"}]}}  # noqa: RUF012
    vpc: dict[str, Any] = {"_component_id": "vpc::a", "name": "a", "tags": {"x": "{{ 1 }}"}}  # noqa: RUF012

    def find(self, id: str) -> Found | None:  # noqa: A002
        return Found(self.vpc, definition=id == "vpc::a") if id.startswith("vpc") else None

    def all(self) -> list[Found]:
        return [Found(self.vpc, definition=True)] * 50

    def ids(self) -> list[str]:
        return ["vpc::a"] * 50


def attempt_template(source: random.Random) -> None:
    """Compile a random string, check it, render it."""
    text = "".join(source.choices(WORDS, k=source.randint(1, 30)))
    if source.random() < 0.7:
        text = source.choice(["{{%s}}", "$(%s)", "a{{ %s }}b", '{{ components["%s"].name }}']) % text
    fields = {
        "_component_id": "x",
        "name": text,
        "tags": {text[:20]: [text]},
        "_raw": source.choice([None, [], [text]]),
    }
    change = Change("x", "vpc", Action.CREATE, "aws", State.WAITING, msgspec.json.encode(fields))
    scope = Everything()
    try:
        template = compile_change(
            change,
            "b",
            templates=source.choice(list(Templates)),
            unresolved=source.choice(list(OnUnresolved)),
            limits=DEFAULT_LIMITS,
        )
        template.needs(Needs(scope, template.syntax, lambda _: True))
        template.check(scope, lambda name: name == "vpc::b")
        msgspec.json.decode(template.render(scope).body)
    except TemplateError as error:
        said(str(error))


@pytest.mark.parametrize("attempt", [attempt_build, attempt_reply, attempt_template])
def test_random_input_is_taken_or_refused(attempt: Callable[[random.Random], None]) -> None:
    """Random input is taken, or refused with a reason, in no time."""
    check(attempt)


@pytest.mark.fuzz
@pytest.mark.parametrize("attempt", [attempt_build, attempt_reply, attempt_template])
def test_a_minute_of_random_input(
    attempt: Callable[[random.Random], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for a third of a minute each."""
    monkeypatch.setenv("FUZZ_SECONDS", os.environ.get("FUZZ_SECONDS", "20"))
    check(attempt)
