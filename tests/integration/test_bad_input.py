"""Builds that are refused, messages that are too large, and hostile values: each costs its own build only."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from copy import deepcopy
from typing import Any

import pytest
from support.brokers import nats_server

from integration.builds import build, chain, component, held
from integration.conftest import Site, World
from integration.harness import CANARY, Feed, Message, errors, states

pytestmark = pytest.mark.integration

JSON = dict[str, Any]
LIMIT = 20_000
"""``max_payload`` of a small broker."""


@pytest.fixture(scope="module")
def beside(site: Site) -> Iterator[JSON]:
    """A good build that is in flight while everything else here happens."""
    document = chain(component("vpc::1"), held("net::1", "beside"), component("vm::1"))
    site.submitter.accepted(document)
    site.connectors.await_requests(document["id"], "net::1")
    yield document
    site.connectors.release("beside")
    assert set(states(site.submitter.done(document)).values()) == {"completed"}
    assert site.connectors.ids(document["id"]) == ["vpc::1", "net::1", "vm::1"]


def with_fields(**fields: Any) -> JSON:
    """A build of one component with these fields."""
    return build(component("vpc::1", **fields))


def nested(levels: int) -> Any:
    """A list so many levels deep."""
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def text_of(document: JSON, old: str, new: str) -> bytes:
    """A build as bytes, with a part replaced that JSON could not express."""
    text = json.dumps(document)
    assert old in text
    return text.replace(old, new).encode("latin-1")


VALUE = with_fields(value="HERE")
TWO = [component("vpc::1"), component("net::1")]
UNREADABLE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "JSON"),
    "no JSON": (b"build me", "JSON"),
    "half of it": (json.dumps(VALUE).encode()[:-30], "JSON"),
    "a list": (b"[]", "JSON object"),
    "null": (b"null", "JSON object"),
    "no id": (json.dumps({**VALUE, "id": None}).encode(), "id"),
    "an empty id": (json.dumps({**VALUE, "id": ""}).encode(), "id"),
    "a number for an id": (json.dumps({**VALUE, "id": 5}).encode(), "id"),
    "an id with a space": (json.dumps({**VALUE, "id": "a b"}).encode(), "id"),
    "an id with CR LF": (json.dumps({**VALUE, "id": "a\r\nPUB x 0\r\n"}).encode(), "id"),
    "an id of 129 characters": (json.dumps({**VALUE, "id": "x" * 129}).encode(), "id"),
    "deep nesting all over": (b"[" * 100_000, "JSON"),
    "not UTF-8 in a key": (b'{"\xff": 1}', "UTF-8"),
    "NaN": (text_of(VALUE, '"HERE"', "NaN"), "invalid character 'N'"),
    "infinity": (text_of(VALUE, '"HERE"', "-Infinity"), "invalid character 'I'"),
    "a lone surrogate": (text_of(VALUE, '"HERE"', '"\\ud800"'), "lone surrogate"),
}
RAW: dict[str, tuple[bytes, str]] = {
    "not UTF-8": (text_of(VALUE, '"HERE"', '"\xff"'), "UTF-8"),
    "beyond a double": (text_of(VALUE, '"HERE"', "1e999"), "changes[0]"),
    "1,000 digits": (text_of(VALUE, '"HERE"', "1" * 1_000), "max_digits 300"),
    "5,000 digits": (text_of(VALUE, '"HERE"', "1" * 5_000), "max_digits 300"),
    "1,000 digits outside of a component": (
        text_of({**VALUE, "n": "X"}, '"X"', "1" * 1_000),
        "max_digits 300",
    ),
}
TOKENS = ["a b", "aws\r\nPUB build.create.done 2\r\n{}", "a\0b", "*", ">", "a.b", "$SYS", "", "é", "x" * 65]
REFUSED: dict[str, tuple[JSON, str]] = {
    "61 levels in a component": (with_fields(value=nested(62)), "max_depth 64"),
    "65 levels in the build": ({**VALUE, "more": nested(64)}, "max_depth 64"),
    "duplicate ids": (build(component("vpc::1"), component("vpc::1")), "changes[1]._component_id"),
    "duplicates that exist": (build(components=[{"_component_id": "a"}] * 2), "components[1]._component_id"),
    "no component id": (with_fields(_component_id=""), "changes[0]._component_id"),
    "a pseudo id": (with_fields(_component_id="start"), "reserved"),
    "an id of 5,000 characters": (with_fields(_component_id="x" * 5_000), "max_id_bytes is 512"),
    "no type": (with_fields(_component=None), "changes[0]._component"),
    "a list for a provider": (with_fields(_provider=["aws"]), "changes[0]._provider"),
    "an unknown action": (with_fields(_action="destroy"), "create, update, delete, get, find, none"),
    "an unknown state": (with_fields(_state="done"), "changes[0]._state"),
    "a timeout of nothing": (with_fields(_timeout=0), "changes[0]._timeout"),
    "null in changes": ({**VALUE, "changes": [None]}, "changes[0]"),
    "an object for changes": ({**VALUE, "changes": {}}, "changes"),
    "an edge from nowhere": ({**VALUE, "edges": [{"source": "vpc::2", "destination": "vpc::1"}]}, "vpc::2"),
    "an edge of numbers": ({**VALUE, "edges": [{"source": 1, "destination": "vpc::1"}]}, "edges[0].source"),
    "an edge to itself": ({**VALUE, "edges": [{"source": "vpc::1", "destination": "vpc::1"}]}, "itself"),
    "a cycle": (build(*TWO, edges="vpc::1 net::1 vpc::1"), "cycle: vpc::1 -> net::1 -> vpc::1"),
    "a reference to nothing": (
        build(component("network::dmz"), component("vm::1", net='{{ components["network::dmzz"].id }}')),
        "vm::1.net: there is no 'network::dmzz'; did you mean 'network::dmz'?",
    ),
    "a reference to itself": (with_fields(value="{{ component.value }}"), "vpc::1.value: refers to itself"),
    "a reference to its own id": (
        with_fields(value='$(components.#[_component_id="vpc::1"].value)'),
        "vpc::1.value: refers to itself",
    ),
    "an expression of its own id": (
        with_fields(value='{{ components["vpc::1"].value }}'),
        "vpc::1.value: refers to itself",
    ),
    "references in a circle": (
        build(
            component("vpc::1", v='{{ components["net::1"].out }}'),
            component("net::1", v='$(components.#[_component_id="vpc::1"].out)'),
        ),
        "cycle",
    ),
    "a call": (with_fields(value='{{ "a".format(1) }}'), "vpc::1.value"),
    "a private attribute": (with_fields(value="{{ build.__class__ }}"), "vpc::1.value"),
    "a bomb": (with_fields(value="{{ 'a' * 10 ** 9 }}"), "vpc::1.value"),
    "an expression cut short": (with_fields(value='{{ components["vpc'), "vpc::1.value"),
    "300 KiB in a component": (with_fields(value="x" * 300 * 1024), "max_component_bytes is 262144"),
    "a type of the system": (with_fields(_component="build"), "changes[0]._component"),
    "a private type": (with_fields(_component="_INBOX"), "changes[0]._component"),
    "a provider of the system": (with_fields(_provider="done"), "changes[0]._provider"),
    **{f"provider {token!r}": (with_fields(_provider=token), "changes[0]._provider") for token in TOKENS},
    **{f"type {token!r}": (with_fields(_component=token), "changes[0]._component") for token in TOKENS},
}


def check_refusal(site: Site, data: bytes, expected: str) -> JSON:
    """The answer is a rejection that says what is wrong; returns its error."""
    answer = site.client.request("build.create", data)
    assert answer["status"] == "rejected", answer
    error: JSON = answer["error"]
    assert error["code"] in {"invalid", "limit"}
    assert any(expected in detail for detail in error["details"]), error["details"]
    assert error["message"].partition(" (and ")[0] in error["details"][0]
    assert CANARY not in json.dumps(answer)
    return error


def check_alive(site: Site, beside: JSON) -> None:
    """The service does its work: on the build beside, and on another."""
    assert site.scheduler.running
    assert not site.submitter.reports_of(beside["id"])
    site.submitter.run(build(component("vpc::1")))


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_has_no_id_is_answered_and_nothing_else(site: Site, beside: JSON, name: str) -> None:
    """Whoever asked is told; without a reply subject there is nobody to tell but the log."""
    data, expected = UNREADABLE[name]
    check_refusal(site, data, expected)
    before = len(site.submitter.reports)
    rejections = len([line for line in site.scheduler.err if "build rejected" in line])
    # Of rejections within a second the log has one: so it is published until its turn has come.
    for attempt in range(1, 41):
        site.client.publish("build.create", data)
        try:
            site.scheduler.await_log("build rejected", 0.5, times=rejections + 1)
        except AssertionError:
            assert attempt < 40, "no rejection was logged"
        else:
            break
    check_alive(site, beside)
    assert len(site.submitter.reports) == before + 1


@pytest.mark.parametrize("name", [*RAW, *REFUSED])
def test_a_bad_build_is_refused_with_the_place(site: Site, beside: JSON, name: str) -> None:
    """The answer names what is wrong; nobody asking, the build goes to ``.error``; nothing is requested."""
    if name in RAW:
        data, expected = RAW[name]
    else:
        document, expected = REFUSED[name]
        data = json.dumps(document).encode()
    name_of_build = json.loads(data.decode("latin-1"), parse_constant=str)["id"] if name not in BIG else None
    check_refusal(site, data, expected)
    if name_of_build is not None:
        before = len(site.submitter.reports_of(name_of_build))
        site.client.publish("build.create", data)
        echo = nth_report(site.submitter.reports, name_of_build, before + 1)
        assert echo.subject == "build.create.error"
        assert expected in echo.data.decode() or "more)" in echo.json["error"]
        assert not site.connectors.requests(name_of_build)
    check_alive(site, beside)


BIG = {"1,000 digits", "5,000 digits", "1,000 digits outside of a component", "not UTF-8"}
"""Of these the echo would be as unreadable as the build."""


def nth_report(reports: Feed[Message], name: str, number: int) -> Message:
    """Wait for the nth report of a build."""

    def identity(message: Message) -> Any:
        try:
            return message.json.get("id")
        except ValueError:
            return name if name.encode() in message.data else None

    return reports.count(number, lambda message: identity(message) == name)[number - 1]


def test_every_problem_of_a_build_is_named_at_once(site: Site, beside: JSON) -> None:
    """Each with its place, a knot of cycles by its shortest as a path."""
    document = build(
        component("a::1", _provider="x y"),
        component("a::2", _action="explode"),
        component("a::3", value='{{ components["a::9"].x }}'),
        component("a::4"),
        component("a::5"),
        component("a::6"),
        edges="a::4 a::5 a::4, a::5 a::6 a::5, a::4 nowhere",
    )
    error = check_refusal(site, json.dumps(document).encode(), "changes[0]._provider")
    for expected in (
        "changes[1]._action",
        "a::3.value: there is no 'a::9'",
        "cycle: a::4 -> a::5 -> a::4, and 1 more way round",
        "nowhere",
    ):
        assert any(expected in detail for detail in error["details"]), error["details"]
    check_alive(site, beside)


def test_an_echo_that_would_be_too_large_is_reduced(site: Site, beside: JSON) -> None:
    """An unasked build just below ``max_payload`` is refused without its lists, and the answer says so."""
    document = build(*(component(f"vpc::{n}", _action="explode", text="x" * 200_000) for n in range(5)))
    document["padding"] = "x" * (1024 * 1024 - len(json.dumps(document)) - 100)
    site.submitter.publish(document)
    echo = site.submitter.failed(document)
    assert "_action" in echo["error"]
    assert echo["omitted"] == ["components", "changes", "edges"]
    check_alive(site, beside)


def test_what_only_turns_out_when_due_fails_that_component(site: Site, beside: JSON) -> None:
    """A connector's value in a token is checked like any other: nothing is published, nothing injected."""
    evil = "aws\r\nPUB build.delete.done 2\r\n{}\r\nPUB x 0\r\n\r\n"
    wire = site.client.listen(">")
    for number, value in enumerate([evil, "done", "mapping", "a.b", "*", "", "ok ", "definition"]):
        document = build(
            component("vpc::1", {"set": {"to": value}}),
            component("net::1", _provider='$(components.#[_component_id="vpc::1"].to)'),
        )
        site.submitter.accepted(document)
        report = site.submitter.failed(document)
        assert states(report) == {"vpc::1": "completed", "net::1": "errored"}, number
        assert "_provider" in errors(report)["net::1"]
    site.client.flush()
    seen = {
        message.subject for message in wire if not message.subject.startswith(("_INBOX", "scheduler.", "_R_"))
    }
    assert {subject for subject in seen if "create.aws" not in subject} <= {
        "build.create",
        "build.create.error",
    }
    check_alive(site, beside)


LIMITS = {
    "max_changes": 4,
    "max_components": 3,
    "max_edges": 3,
    "max_depth": 6,
    "max_digits": 20,
    "max_component_bytes": 1_024,
    "max_id_bytes": 16,
    "max_template_nodes": 4,
}


def at_limit(name: str, number: int) -> JSON:
    """A build with ``number`` of what the limit bounds."""
    change = component("a::1", action="none")
    match name:
        case "max_changes":
            return build(*(component(f"a::{n}", action="none") for n in range(number)))
        case "max_components":
            return build(components=[{"_component_id": f"a::{n}"} for n in range(number)])
        case "max_edges":
            edges = [{"source": "start", "destination": "a::1"}] * number
            return {**build(change), "edges": edges}
        case "max_depth":
            return build({**change, "value": nested(number - 3)})
        case "max_digits":
            return build({**change, "value": int("9" * number)})
        case "max_component_bytes":
            document = build({**change, "value": ""})
            used = len(json.dumps(document["changes"][0], separators=(",", ":")))
            document["changes"][0]["value"] = "x" * (number - used)
            return document
        case "max_id_bytes":
            return build(component("a::" + "x" * (number - 3), action="none"))
        case _:
            return build(*(component(f"a::{n}", v="{{ build.id }}", action="none") for n in range(number)))


@pytest.fixture(scope="module")
def narrow() -> Iterator[Site]:
    """A site whose limits are low."""
    with ExitStack() as stack:
        flags = [
            text for name, value in LIMITS.items() for text in (f"--{name.replace('_', '-')}", str(value))
        ]
        world = World(stack, stack.enter_context(nats_server({"max_payload": LIMIT})))
        site = Site(world, *flags, "--max-builds", "2")
        yield site
        site.scheduler.end()


@pytest.mark.parametrize("name", [name for name in LIMITS if name != "max_template_nodes"])
def test_a_limit_holds_at_n_and_refuses_n_and_one(narrow: Site, name: str) -> None:
    """The refusal has the limit's name and value."""
    most = LIMITS[name]
    fits, over = (
        json.dumps(at_limit(name, number), separators=(",", ":")).encode() for number in (most, most + 1)
    )
    assert narrow.client.request("build.create", fits)["status"] == "accepted"
    answer = narrow.client.request("build.create", over)
    assert answer["status"] == "rejected"
    details = " ".join(answer["error"]["details"])
    assert name in details
    assert str(most) in details


def test_template_nodes_are_limited(narrow: Site) -> None:
    """Over a whole build, not for each component."""
    few, many = (build(*(component(f"a::{n}", v="{{ build.id }}") for n in range(count))) for count in (1, 4))
    narrow.submitter.run(few)
    answer = narrow.submitter.submit(many)
    assert answer["status"] == "rejected"
    assert "max_template_nodes" in " ".join(answer["error"]["details"])


def test_more_builds_than_allowed_are_busy(narrow: Site) -> None:
    """Two run; a third is refused, and taken once there is room again."""
    two = [build(held("a::1", "busy")) for _ in range(2)]
    narrow.submitter.accepted(*two)
    third = build(component("a::1"))
    answer = narrow.submitter.submit(third)
    assert answer["error"]["code"] == "busy"
    assert "max_builds is 2" in answer["error"]["message"]
    narrow.connectors.release("busy")
    for one in two:
        narrow.submitter.done(one)
    narrow.submitter.run({**third, "id": "third-again"})


@pytest.mark.parametrize(("list_name", "most"), [("changes", 10_000), ("edges", 100_000)])
def test_the_limits_of_the_specification(start_world: Any, list_name: str, most: int) -> None:
    """10,000 changes and 100,000 edges are built; one more is refused."""
    world: World = start_world({"max_payload": 32 << 20})
    scheduler, submitter = world.scheduler(), world.submitter()
    size = most if list_name == "changes" else 1_000
    changes = [
        {"_component_id": f"a::{n}", "_component": "a", "_provider": "aws", "_action": "none"}
        for n in range(size)
    ]
    document = build(*changes)
    if list_name == "edges":
        document["edges"] = [
            {"source": f"a::{n // 200}", "destination": f"a::{500 + n % 200}"} for n in range(most)
        ]
    submitter.accepted(document)
    assert len(submitter.done(document)["changes"]) == size
    over = deepcopy(document) | {"id": "over"}
    over[list_name].append({**over[list_name][-1], "_component_id": "a::x"})
    answer = submitter.submit(over)
    assert answer["error"]["code"] == "limit"
    assert f"max_{list_name} is {most}" in answer["error"]["message"]
    scheduler.end()


def test_a_report_over_max_payload_is_reduced(start_world: Any) -> None:
    """What the connectors returned is too much for one message: the report says so, and whose build it is."""
    world: World = start_world({"max_payload": LIMIT})
    scheduler, connectors, submitter = world.scheduler(), world.connectors(), world.submitter()
    document = build(*(component(f"vpc::{n}", {"pad": 6_000}) for n in range(4)))
    submitter.accepted(document)
    report = submitter.report(document["id"])
    assert report.subject == "build.create.done"
    assert f"max_payload of {LIMIT} bytes" in report.json["error"]
    assert report.json["omitted"] == ["components", "changes", "edges"]
    assert report.json["states"] == {"completed": 4}
    assert len(connectors.ids()) == 4
    submitter.run(build(component("vpc::1")))
    scheduler.end()


def test_a_request_over_max_payload_fails_that_component(start_world: Any) -> None:
    """Its references grew it too large: the error names the limit, and the broker is not bothered."""
    world: World = start_world({"max_payload": LIMIT})
    scheduler, connectors, submitter = world.scheduler(), world.connectors(), world.submitter()
    reference = '$(components.#[_component_id="vpc::1"].padding)'
    document = build(component("vpc::1", {"pad": 5_000}), component("net::1", parts=[reference] * 5))
    submitter.accepted(document)
    report = submitter.failed(document)
    assert states(report) == {"vpc::1": "completed", "net::1": "errored"}
    assert f"max_payload of {LIMIT} bytes" in errors(report)["net::1"]
    assert connectors.ids() == ["vpc::1"]
    submitter.run(build(component("vpc::1")))
    assert not [line for line in scheduler.err if "lost the connection" in line]
    scheduler.end()
