"""Generates builds for trials and measurements: any number of components, in a few shapes.

Every component is similar to one of AWS, has about 450 bytes and up to two dependencies. It refers to the
first with ``$(...)`` and to the second with ``{{ }}``, so that both kinds of references are resolved.
"""

import random
from enum import StrEnum
from typing import Any

PROVIDER = "aws"
KINDS = ("vpc", "network", "firewall", "instance")
"""Types of components, in turns; simulated connectors return the output of each type in `OUTPUTS`."""
OUTPUTS = {
    "vpc": "vpc_aws_id",
    "network": "network_aws_id",
    "firewall": "security_group_aws_id",
    "instance": "instance_aws_id",
}
_CHAINS = 10
_LAYERS = 20


class Shape(StrEnum):
    """Shape of a generated build's graph."""

    LAYERED = "layered"
    """Up to 20 layers; each component depends on about two of the layer before."""
    WIDE = "wide"
    """One component on which all others depend."""
    CHAINS = "chains"
    """Ten chains side by side."""


def generate(
    components: int, *, shape: Shape = Shape.LAYERED, seed: int = 0, build: str = ""
) -> dict[str, Any]:
    """Generate a build that creates ``components`` components; equal arguments make equal builds.

    Args:
        components: the number of components, at least one.
        shape: the shape of the graph.
        seed: the seed of random choices.
        build: the build's id; if empty, it is made of the other arguments.
    """
    build = build or f"demo-{shape}-{components}"
    dependencies = _dependencies(components, shape, random.Random(seed))  # noqa: S311 - nothing secret
    changes = [_component(build, number, needs) for number, needs in enumerate(dependencies)]
    used = {need for needs in dependencies for need in needs}
    edges = [("start", _id(number)) for number, needs in enumerate(dependencies) if not needs]
    edges += [(_id(need), _id(number)) for number, needs in enumerate(dependencies) for need in needs]
    edges += [(_id(number), "end") for number in range(components) if number not in used]
    return {
        "id": build,
        "name": "generated",
        "user_id": 1,
        "username": "demo",
        "action": "build.create",
        "options": {"region": "eu-west-1"},
        "components": [],
        "changes": changes,
        "edges": [{"source": source, "destination": to, "length": 1} for source, to in edges],
    }


def _dependencies(components: int, shape: Shape, rng: random.Random) -> list[list[int]]:
    """Choose the dependencies of each component, all with smaller numbers."""
    if shape is Shape.WIDE:
        return [[0] if number else [] for number in range(components)]
    if shape is Shape.CHAINS:
        return [[number - _CHAINS] if number >= _CHAINS else [] for number in range(components)]
    layers = max(1, min(_LAYERS, round(components**0.5)))
    width = -(-components // layers)
    found: list[list[int]] = []
    for number in range(components):
        start = number // width * width
        before = range(max(0, start - width), start)
        found.append(sorted(rng.sample(before, min(2, len(before)))))
    return found


def _id(number: int) -> str:
    return f"{KINDS[number % len(KINDS)]}::node-{number:05}"


def _output(number: int) -> str:
    return OUTPUTS[KINDS[number % len(KINDS)]]


def _component(build: str, number: int, needs: list[int]) -> dict[str, Any]:
    name = f"node-{number:05}"
    fields: dict[str, Any] = {
        "_action": "create",
        "_component": KINDS[number % len(KINDS)],
        "_component_id": _id(number),
        "_provider": PROVIDER,
        "_state": "waiting",
        "service": build,
        "name": name,
        "availability_zone": "eu-west-1a",
        "range": f"10.{number // 256 % 256}.{number % 256}.0/24",
        "tags": {"Name": name, "ernest.service": build},
        _output(number): "",
    }
    if needs:
        first, last = needs[0], needs[-1]
        fields["parent_id"] = f'$(components.#[_component_id="{_id(first)}"].{_output(first)})'
        fields["user_data"] = f'join {{{{ components["{_id(last)}"].{_output(last)} }}}} as {name}'
    return fields
