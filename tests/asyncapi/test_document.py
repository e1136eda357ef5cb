"""The AsyncAPI document: valid by the official schema, with every subject, and with examples that fit."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from asyncapi.wire import Wire
from scheduler.asyncapi.channels import channels
from scheduler.asyncapi.document import allowed, asyncapi
from scheduler.asyncapi.messages import BYTES, messages
from scheduler.asyncapi.schemas import Definitions
from scheduler.control.endpoint import VERBS
from scheduler.diagnosis.permissions import SUBSCRIPTIONS, publishes
from scheduler.permissions import shipped, users

OFFICIAL = json.loads((Path(__file__).parent / "asyncapi-3.0.0.schema.json").read_text())
DOCUMENT = asyncapi()
NO_SUBJECT = {"0.0.0.0:4222", "1m"}
SUBJECTS = sorted(set(re.findall(r'"([^"\s]+)"', shipped())) - NO_SUBJECT)
"""Every subject that the permissions name: in lists, exports, imports and comments."""


def problems(document: dict[str, Any]) -> list[str]:
    return [
        f"{error.json_path}: {error.message}" for error in Draft7Validator(OFFICIAL).iter_errors(document)
    ]


def test_it_is_one_by_the_official_schema() -> None:
    """Every tool that reads AsyncAPI 3.0 can read it."""
    assert problems(DOCUMENT) == []


@pytest.mark.parametrize("place", ["channels", "operations", "components"])
def test_the_official_schema_finds_a_mistake(place: str) -> None:
    """It looks at all parts of the document."""
    broken = deepcopy(DOCUMENT)
    part = broken[place]["messages"] if place == "components" else broken[place]
    next(iter(part.values()))["unknown"] = 1
    assert problems(broken)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_of_the_permissions_has_a_channel(subject: str) -> None:
    """What somebody may use is described."""
    assert [name for name, channel in channels().items() if allowed(channel.subjects, [subject])]


@pytest.mark.parametrize("name", channels())
def test_a_channel_is_one_of_the_permissions(name: str) -> None:
    """What is described, somebody may use: each of its subjects, and not only some."""
    every = [subject for user in users() for subject in user.subjects]
    assert [one for one in channels()[name].subjects if not allowed([one], every)] == []


@pytest.mark.parametrize("store", ["jetstream", "ernest", "memory"])
def test_all_that_the_service_publishes_it_sends(store: str) -> None:
    """Each subject that a service needs for publishing belongs to an operation that sends."""
    for need in publishes(store):
        assert of_the_service("send", need.line), need.line


def test_all_that_the_service_subscribes_to_it_receives() -> None:
    """Each subscription of a service belongs to an operation that receives."""
    for subject in SUBSCRIPTIONS:
        assert of_the_service("receive", subject), subject


def of_the_service(action: str, subject: str) -> list[str]:
    """The operations with this action on a subject."""
    return [
        name
        for name, operation in DOCUMENT["operations"].items()
        if operation["action"] == action
        and allowed(channels()[operation["channel"]["$ref"].rpartition("/")[2]].subjects, [subject])
    ]


def test_who_may_use_a_channel_is_what_the_permissions_say() -> None:
    """Commands are for operators alone, questions for submitters too, and nobody else hears a request."""
    by = {name: channel["x-nats-users"] for name, channel in DOCUMENT["channels"].items()}
    assert by["cancel"] == {"publish": ["operator"], "subscribe": ["scheduler"]}
    assert by["unmasked"] == by["cancel"]
    assert by["get"]["publish"] == ["uploader", "submitter", "operator"]
    assert by["requests"] == {"publish": ["scheduler"], "subscribe": ["connector"]}
    assert by["sharedReplies"] == {"publish": ["connector"], "subscribe": ["scheduler"]}
    assert by["discoveryOfService"]["subscribe"] == ["scheduler", "connector"]
    assert by["connectorRecords"]["publish"] == ["connector"]


def test_what_comes_in_is_shared_in_the_queue_group() -> None:
    """Builds and questions are taken by one instance each, and nothing else is."""
    queues = {name: one.get("bindings") for name, one in DOCUMENT["operations"].items() if "bindings" in one}
    assert set(queues) == {f"receive.{name}" for name in ("builds", *VERBS)}
    assert all(one == {"nats": {"queue": "scheduler"}} for one in queues.values())


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_answered_as_its_structures_say(verb: str) -> None:
    """Its channel has the schemas that service discovery shows."""
    operation = DOCUMENT["operations"][f"receive.{verb}"]
    assert DOCUMENT["channels"][verb]["address"] == f"scheduler.build.{verb}"
    shown = {json.dumps(without_title(json.loads(one))) for one in VERBS[verb].metadata.values()}
    told = [*operation["messages"], operation["reply"]["messages"][0]]
    assert {json.dumps(without_title(payload(reference))) for reference in told} == shown


def payload(reference: dict[str, str]) -> dict[str, Any]:
    """The payload of the message that an operation refers to."""
    found: dict[str, Any] = follow(follow(reference)["$ref"])["payload"]
    return found


def without_title(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sorted(schema.items()) if key != "title"}


def follow(reference: str | dict[str, str]) -> Any:
    """What a reference within the document leads to."""
    path = reference if isinstance(reference, str) else reference["$ref"]
    assert path.startswith("#/")
    found: Any = DOCUMENT
    for part in path[2:].split("/"):
        found = found[part]
    return found


def test_every_reference_leads_somewhere() -> None:
    """Into the document itself; and every message is said somewhere."""
    seen = set(references(DOCUMENT))
    assert [one for one in seen if not follow(one)] == []
    messages_said = {one.rpartition("/")[2] for one in seen if one.startswith("#/components/messages/")}
    assert messages_said == set(DOCUMENT["components"]["messages"])


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_every_address_has_its_parameters() -> None:
    """What stands in braces is described, and nothing else is."""
    for name, channel in DOCUMENT["channels"].items():
        words = re.findall(r"\{(\w+)\}", channel["address"] or "")
        assert [*channel.get("parameters", {})] == words, name


@pytest.mark.parametrize("name", messages())
def test_an_example_fits_its_schema(name: str) -> None:
    """Each one; and what is JSON or text has an example, where it is not another's document."""
    wire = Wire(DOCUMENT)
    entry = messages()[name]
    for example in entry.examples:
        assert wire.problems(name, example) == []
    theirs = {"brokerRequest", "brokerAnswer"}
    assert entry.examples or entry.content == BYTES or name in theirs or name.endswith("Answer")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("build", {"id": "b-1", "changes": [{"_component_id": "a"}]}),
        ("request", {"_component_id": "a", "_state": "waiting"}),
        ("reply", {"_state": "running"}),
        ("progress", {"v": 2}),
        ("record", {"v": 1}),
        ("extendRequest", {"id": "b-1", "component": "a"}),
        ("heartbeat", {"progress": 2}),
        ("news", "elephants"),
    ],
)
def test_a_message_that_is_wrong_does_not_fit(name: str, body: object) -> None:
    """The schemas say something: what is missing, or of another kind, is found."""
    assert Wire(DOCUMENT).problems(name, body)


def test_two_definitions_do_not_share_a_name() -> None:
    """Of two structures of one name none is lost."""
    definitions = Definitions()
    definitions.take({"$defs": {"A": {"type": "string"}}})
    definitions.take({"$defs": {"_A": {"type": "string"}}})
    with pytest.raises(ValueError, match="the name A"):
        definitions.take({"$defs": {"A": {"type": "integer"}}})


def test_nothing_stands_beside_a_reference() -> None:
    """In draft 7 it would not count."""
    taken = Definitions().take({"$ref": "#/$defs/A", "description": "x", "allOf": [{"type": "object"}]})
    link = {"$ref": "#/components/schemas/A"}
    assert taken == {"description": "x", "allOf": [link, {"type": "object"}]}
    assert Definitions().take({"$ref": "#/$defs/_A"}) == link


def test_tuples_are_written_as_draft_7_has_them() -> None:
    """By a list of schemas, and one for what follows."""
    schema = {"type": "array", "prefixItems": [{"type": "string"}], "items": False}
    expected = {"type": "array", "items": [{"type": "string"}], "additionalItems": False}
    assert Definitions().take(schema) == expected
