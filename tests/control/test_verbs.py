"""Verbs: what each takes is written once, and checked, shown and filled in from there."""

import json
import time
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from support.asking import NEEDED, ask, ask_raw, refused, running
from support.fakes import JSON, Site, document, encode
from support.fitting import fitting, unfitting
from support.schemas import Checker

from scheduler.commands.catalogue import COMMANDS
from scheduler.control import verbs
from scheduler.control.endpoint import VERBS, Control
from scheduler.control.eta import EtaEstimator
from scheduler.control.parts import Parts
from scheduler.control.registry import Verbs, json_schema, read_request
from scheduler.errors import Refused

NAMES = tuple(VERBS)


def schema_of(name: str) -> JSON:
    return json_schema(VERBS[name].request)


def parts_of(site: Site) -> Parts:
    service = site.service
    eta = EtaEstimator(service.planner.durations, (), 1)
    store = service.persistence.store
    return Parts.of(service.roster, store, service.slots, eta=eta, reader=service.reader)


class Greeting(verbs.Answer, frozen=True, kw_only=True):
    """A word to a build."""

    text: str


class Greet(verbs.Query, frozen=True, kw_only=True):
    """Greet a build."""

    answer = Greeting
    id: verbs.BuildId
    times: int = 1
    names: list[str] | None = None


async def test_a_verb_is_one_structure_and_one_function() -> None:
    """Registered, it is answered, checked, counted and shown like any other."""
    more: Verbs[Parts] = Verbs(VERBS)

    @more.register(Greet)
    async def greet(parts: Parts, request: Greet) -> Greeting:
        seen = await parts.builds.find(request.id)
        return Greeting(text=f"{'hello ' * request.times}{seen.plan.build.id}")

    async with running(document("a")) as site:
        control = Control(site.bus, parts_of(site), more)
        await site.nursery.start(control.run)
        assert await ask(site, "greet", times=2) == {"text": "hello hello b1"}
        assert await refused(site, "greet", times="2") == ("invalid", "times: a whole number")
        assert await refused(site, "greet", names={}) == ("invalid", "names: a list is required")
        assert (await refused(site, "greet", names=[1]))[1].startswith("names: ")
        assert (await refused(site, "greet", "nobody"))[0] == "unknown"
        endpoint = control.endpoints["greet"]
        assert (endpoint.name, endpoint.subject) == ("build-greet", "scheduler.build.greet")
        assert (endpoint.requests, endpoint.errors) == (5, 4)
        shown = {name: json.loads(text) for name, text in endpoint.metadata.items()}
        assert shown["request_schema"]["description"] == "Greet a build."
        assert shown["request_schema"]["required"] == ["id"]
        assert shown["response_schema"]["properties"] == {"text": {"type": "string"}}
        assert "greet" not in VERBS


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=50)
def test_what_a_schema_accepts_is_read(name: str, data: st.DataObject) -> None:
    """With the values that were given, defaults where there are none, and without unknown members."""
    schema = schema_of(name)
    value = data.draw(fitting(schema))
    assert Checker(schema).fits(value)
    request = read_request(VERBS[name].request, value)
    known = {key: one for key, one in value.items() if key in schema["properties"]}
    defaults = {key: one["default"] for key, one in schema["properties"].items() if "default" in one}
    members = msgspec.structs.fields(type(request))
    assert {one.encode_name: getattr(request, one.name) for one in members} == {**defaults, **known}
    again = json.loads(encode(msgspec.to_builtins(request)))
    assert read_request(VERBS[name].request, again) == request


@pytest.mark.parametrize("name", [name for name in NAMES if schema_of(name)["properties"]])
@given(data=st.data())
@settings(max_examples=50)
def test_what_a_schema_does_not_accept_is_refused(name: str, data: st.DataObject) -> None:
    """With the member that is wrong or missing, and what it has to be."""
    schema = schema_of(name)
    properties = schema["properties"]
    value = data.draw(fitting(schema))
    wrong = data.draw(st.sampled_from([one for one in properties if name != "limit" or one != "limits"]))
    if wrong in schema["required"] and data.draw(st.booleans()):
        value.pop(wrong)
    else:
        value[wrong] = data.draw(unfitting(properties[wrong]))
    with pytest.raises(Refused, match=rf"\A{wrong}: [a-z]") as caught:
        read_request(VERBS[name].request, value)
    assert caught.value.code == "invalid"


async def test_garbage_is_refused_and_changes_nothing() -> None:
    """By every verb, for every member: the build stays as it was, and nothing is sent."""
    async with running() as site:
        before = await ask(site, "get")
        for name in NAMES:
            for member, schema in schema_of(name)["properties"].items():
                for value in (None, True, 7, -1, 1.5, "", "x", [], [1], {}, {"x": [1]}):
                    if Checker(schema).fits(value):
                        continue
                    asked = {"id": "b1", **NEEDED.get(name, {}), member: value}
                    answer = await ask_raw(site, name, encode(asked))
                    assert answer.code == "invalid", (asked, answer)
                    assert answer.text.startswith(f"{member}: "), (asked, answer)
        after = await ask(site, "get")
        passing = {"now": 0, "eta": 0, "overdue": 0}
        assert {**after, **passing} == {**before, **passing}
        assert site.cloud.asked == ["a"]


@given(data=st.data())
@settings(max_examples=25, deadline=None)
async def test_nothing_that_a_schema_accepts_is_an_internal_error(data: st.DataObject) -> None:
    """It is answered, or refused with a reason that is no matter of form."""
    async with running() as site:
        ids = st.sampled_from(["b1", "nobody"])
        for name in data.draw(st.permutations(NAMES)):
            value = data.draw(fitting(schema_of(name))) | {"id": data.draw(ids)}
            if data.draw(st.booleans()) and "component" in value:
                value["component"] = data.draw(st.sampled_from("ab"))
            answer = await ask_raw(site, name, encode(value))
            if not answer.headers:
                assert Checker(json_schema(VERBS[name].request.answer)).fits(answer.body)
            elif answer.code == "expired":
                assert value["expires"] < time.time(), value
            elif answer.code == "invalid":
                said = ("build: ", "limits: ", "seconds: above 0", "from: instead of", "now: with one")
                assert answer.text.startswith(said), value
            else:
                assert answer.code in {"unknown", "conflict", "unavailable"}, value
            await trio.lowlevel.checkpoint()


async def test_every_answer_is_as_its_schema_says() -> None:
    """Of each verb that service discovery shows."""
    async with running(document("abc", [("a", "b")])) as site:
        for name in ("limit", "pause", "resume", "extend", "skip", "list", "get", "why", "plan", "cancel"):
            fields: dict[str, Any] = NEEDED.get(name, {})
            answer = await ask(site, name, **fields)
            assert Checker(json_schema(VERBS[name].request.answer)).fits(answer), answer


def test_a_verb_is_described_as_its_command_is() -> None:
    """In service discovery as in the help of the program."""
    shown = {one.name: one.summary for one in COMMANDS}
    for name, verb in VERBS.items():
        if issubclass(verb.request, verbs.Command):
            assert schema_of(name)["description"] == shown[name]


def test_the_name_of_a_structure_is_its_verb() -> None:
    """Every verb of the wire is there, under its own name."""
    questions = "list get why history plan instances report unmasked"
    commands = "cancel pause resume retry skip approve reject extend limit"
    assert tuple(f"{questions} {commands}".split()) == NAMES
    assert [verb.request.verb() for verb in VERBS.values()] == list(NAMES)
