"""Generated builds, and the examples that ship with the package."""

import json
from typing import Any

import pytest

from scheduler.commands.files import compact, examples, read_example
from scheduler.definition.validation import read_build
from scheduler.local.generate import OUTPUTS, Shape, generate

SIZES = (1, 2, 3, 10, 11, 100, 1_000)


@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize("size", SIZES)
def test_a_generated_build_is_valid_and_has_the_size_asked_for(shape: Shape, size: int) -> None:
    """Whatever the shape and size, the service would take the build."""
    prepared = read_build(json.dumps(generate(size, shape=shape)).encode())
    assert len(prepared.build.changes) == size


@pytest.mark.parametrize("shape", Shape)
def test_generating_is_deterministic(shape: Shape) -> None:
    """The same arguments give the same build; another seed another layered one."""
    assert generate(50, shape=shape, seed=1) == generate(50, shape=shape, seed=1)
    assert generate(50, seed=1) != generate(50, seed=2)


@pytest.mark.parametrize(("shape", "chain"), [(Shape.LAYERED, 20), (Shape.WIDE, 2), (Shape.CHAINS, 100)])
def test_shapes_are_what_they_are_called(shape: Shape, chain: int) -> None:
    """The longest chain is that of 20 layers, of one above all others, of ten chains."""
    prepared = read_build(json.dumps(generate(1_000, shape=shape)).encode())
    assert len(prepared.graph.critical_path()) == chain


def test_components_are_of_the_size_and_kind_that_is_measured_with() -> None:
    """About 450 bytes, two dependencies, one reference of each form to an output of theirs."""
    build = generate(1_000)
    encoded = [len(json.dumps(change, separators=(",", ":"))) for change in build["changes"]]
    assert 400 < sum(encoded) / len(encoded) < 500
    own = [edge for edge in build["edges"] if edge["source"] != "start" and edge["destination"] != "end"]
    assert 1.8 < len(own) / len(build["changes"]) < 2
    last = build["changes"][-1]
    assert last["parent_id"].startswith("$(components.#[_component_id=")
    assert "{{ components[" in last["user_data"]
    assert any(output in last["parent_id"] for output in OUTPUTS.values())


# The shipped examples.


def test_two_examples_ship() -> None:
    """One build creates the environment, the other takes it down."""
    assert examples() == ["create", "delete"]


@pytest.mark.parametrize("name", ["create", "delete"])
def test_an_example_is_valid_and_all_of_it_is_to_be_done(name: str) -> None:
    """An example starts from waiting, and its components know whose they are."""
    document = json.loads(read_example(name))
    prepared = read_build(compact(read_example(name)))
    assert len(prepared.graph.critical_path()) == 5
    for change in document["changes"]:
        assert (change["_action"], change["_state"]) == (name, "waiting")
        assert change["service"] == document["id"]


def test_what_is_to_be_deleted_exists() -> None:
    """Every change of the deleting example stands in its components as well."""
    document = json.loads(read_example("delete"))
    exists = {component["_component_id"]: component for component in document["components"]}
    assert all(exists[change["_component_id"]] == change for change in document["changes"])


def test_the_creating_example_refers_to_what_it_creates() -> None:
    """Its references come in both forms, and none of the cloud's ids is there from the start."""
    document = json.loads(read_example("create"))
    text = json.dumps(document)
    assert "$(components.#[_component_id=" in text
    assert "{{ components[" in text
    assert "{{ component.name }}" in text
    assert "-00000000" not in text
    order = _order(document)
    assert order.index("vpc::test-vpc") < order.index("network::test-dmz") < order.index("elb::test-elb")


def _order(document: dict[str, Any]) -> list[str]:
    prepared = read_build(json.dumps(document).encode())
    ids = [change.id for change in prepared.build.changes]
    return [ids[vertex] for layer in prepared.graph.layers() for vertex in layer]
