"""JSON Schemas of handlers: what their types tell, and an object where they tell nothing."""

import dataclasses
import json
from typing import Annotated, Any

import attrs
import msgspec
import pytest
from cattrs import override

from scheduler.connectors import Connectors
from scheduler.connectors.schemas import LONGEST, schema_of, schemas_of


class Struct(msgspec.Struct, rename="kebab"):
    subnet_id: str


@attrs.define
class Attrs:
    cidr: str


@dataclasses.dataclass
class Data:
    cidr: str = "10.0.0.0/16"


@attrs.define
class Renamed:
    subnet_id: Annotated[str, override(rename="subnet-id")]


@attrs.define
class Foreign:
    made: type


class Long(msgspec.Struct):
    text: Annotated[str, msgspec.Meta(description="x" * LONGEST)]


def properties(schema: dict[str, Any]) -> list[str]:
    (definition,) = schema["$defs"].values()
    return list(definition["properties"])


@pytest.mark.parametrize(("type_", "names"), [(Struct, ["subnet-id"]), (Attrs, ["cidr"]), (Data, ["cidr"])])
def test_a_type_tells_its_fields_by_their_names_in_json(type_: Any, names: list[str]) -> None:
    """Of msgspec, attrs and dataclasses."""
    assert properties(schema_of(type_)) == names


@pytest.mark.parametrize("type_", [dict, Any, dict[str, int], Renamed, Foreign])
def test_a_type_that_msgspec_cannot_describe_is_an_object(type_: Any) -> None:
    """Nothing is said rather than something wrong."""
    assert schema_of(type_) == {"type": "object"}


def described(connectors: Connectors) -> tuple[dict[str, Any], dict[str, Any]]:
    (handler,) = connectors.handlers
    schemas = schemas_of(handler)
    return json.loads(schemas["request_schema"]), json.loads(schemas["response_schema"])


def test_a_success_has_the_type_that_the_handler_returns() -> None:
    """Its annotation says it."""
    connectors = Connectors("aws")

    @connectors.create("vpc")
    def create(request: Attrs) -> Struct:
        return Struct(request.cidr)

    request, response = described(connectors)
    assert properties(request) == ["cidr"]
    assert properties(response) == ["subnet-id"]


def test_a_handler_that_returns_nothing_answers_with_its_request() -> None:
    """So its success has the request's type."""
    connectors = Connectors("aws")

    @connectors.delete("vpc")
    def delete(request: Attrs) -> None:
        del request

    request, response = described(connectors)
    assert request == response


def test_a_find_answers_with_components() -> None:
    """Of the type in the list that it returns."""
    connectors = Connectors("aws")

    @connectors.find("vpc")
    def find(request: dict[str, Any]) -> list[Attrs]:
        return [Attrs(**request)]

    _, response = described(connectors)
    assert properties(response["properties"]["components"]["items"]) == ["cidr"]


def test_a_long_schema_is_left_out() -> None:
    """All of them travel in one message."""
    connectors = Connectors("aws")

    @connectors.create("vpc")
    def create(request: Long) -> Long:
        return request

    assert described(connectors) == ({"type": "object"}, {"type": "object"})
