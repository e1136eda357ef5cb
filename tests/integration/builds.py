"""Builds for integration tests."""

import random
from itertools import count, pairwise
from typing import Any

from integration.harness import CANARY

JSON = dict[str, Any]

_numbers = count(1)


def component(name: str, /, *replies: JSON, action: str = "create", **fields: Any) -> JSON:
    """A change ``<type>::<name>``; its connector answers with ``replies``, or simply completes it."""
    behaviour = {"behaviour": {"replies": list(replies)}} if replies else {}
    return {
        "_component_id": name,
        "_component": name.partition("::")[0],
        "_action": action,
        "_provider": "aws",
        "_state": "waiting",
        "user_data": CANARY,
        **behaviour,
        **fields,
    }


def silent(name: str, /, **fields: Any) -> JSON:
    """A change whose connector never answers."""
    return component(name, **fields) | {"behaviour": {"replies": []}}


def build(*changes: JSON, edges: str = "", action: str = "build.create", **fields: Any) -> JSON:
    """A build with an id of its own; ``edges`` are chains such as ``vpc::1 net::1 vm::1, vpc::1 disk::1``."""
    pairs = []
    for chain in edges.split(","):
        ids = chain.split()
        pairs += [{"source": a, "destination": b, "length": 1} for a, b in pairwise(ids)]
    document = {
        "id": f"build-{next(_numbers)}",
        "name": "test",
        "action": action,
        "components": [],
        "changes": list(changes),
        "edges": pairs,
        **fields,
    }
    return {**document, "changes": [{**change, "service": document["id"]} for change in document["changes"]]}


def chain(*changes: JSON, **fields: Any) -> JSON:
    """A build whose changes depend on one another in turn."""
    return build(*changes, edges=" ".join(change["_component_id"] for change in changes), **fields)


def held(name: str, gate: str, /, **fields: Any) -> JSON:
    """A change whose connector answers once ``gate`` is opened."""
    return component(name, {"hold": gate}, **fields)


def failing(name: str, error: str = "no more quota", /, **fields: Any) -> JSON:
    """A change whose connector reports an error."""
    return component(name, {"state": "errored", "set": {"error": error}}, **fields)


def layered(randomness: random.Random, *, size: int, failures: float, latency: float) -> JSON:
    """A random layered build: every component depends on some of the layer before, and refers to them."""
    layers: list[list[str]] = [[]]
    for number in range(size):
        if layers[-1] and randomness.random() < 0.3:
            layers.append([])
        layers[-1].append(f"{randomness.choice(['vpc', 'net', 'vm'])}::{number}")
    changes, edges = [], []
    for depth, layer in enumerate(layers):
        for name in layer:
            before = layers[depth - 1] if depth else []
            dependencies = randomness.sample(before, min(len(before), randomness.randint(0, 3)))
            edges += [f"{dependency} {name}" for dependency in dependencies]
            fields: JSON = {
                f"ref_{number}": randomness.choice(
                    [
                        f'$(components.#[_component_id="{dependency}"].out)',
                        f'{{{{ components["{dependency}"].out }}}}',
                    ]
                )
                for number, dependency in enumerate(dependencies)
            }
            reply: JSON = {"on": randomness.choice(["subject", "inbox"])}
            if latency:
                reply["latency"] = randomness.random() * latency
            if randomness.random() < failures:
                reply |= {"state": "errored", "set": {"error": f"{name} broke"}}
            changes.append(component(name, reply, **fields))
    randomness.shuffle(changes)
    return build(*changes, edges=",".join(edges))
