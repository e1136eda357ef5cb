"""Builds of many shapes, whose components refer to what their dependencies returned."""

import random
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from integration.builds import build, component

JSON = dict[str, Any]
Needs = list[list[int]]
"""For each component the numbers of those that it depends on, all of them smaller."""

TYPES = ("vpc", "network", "firewall", "instance")


def layered(size: int, randomness: random.Random) -> Needs:
    """Layers of about seven; each component depends on up to three of the layer before."""
    width = 7
    needs: Needs = []
    for number in range(size):
        start = number // width * width
        before = range(max(0, start - width), start)
        needs.append(randomness.sample(before, min(len(before), randomness.randint(1, 3))))
    return needs


def wide(size: int, _: random.Random) -> Needs:
    """One, and all the others behind it."""
    return [[0] if number else [] for number in range(size)]


def chains(size: int, _: random.Random) -> Needs:
    """Five chains side by side."""
    return [[number - 5] if number >= 5 else [] for number in range(size)]


def tree(size: int, _: random.Random) -> Needs:
    """Each component has two behind it."""
    return [[(number - 1) // 2] if number else [] for number in range(size)]


def diamonds(size: int, _: random.Random) -> Needs:
    """One, six behind it, one behind all six, and so on."""
    needs: Needs = [[]]
    for number in range(1, size):
        place = number % 7
        needs.append(list(range(number - 6, number)) if place == 0 else [number - place])
    return needs


def tangle(size: int, randomness: random.Random) -> Needs:
    """Anything before may be a dependency."""
    return [
        sorted(randomness.sample(range(number), min(number, randomness.randint(0, 3))))
        for number in range(size)
    ]


SHAPES = {shape.__name__: shape for shape in (layered, wide, chains, tree, diamonds, tangle)}


def shaped(
    name: str,
    shape: str,
    size: int,
    randomness: random.Random,
    *,
    mixed: bool = False,
    behaviours: Mapping[str, JSON] | None = None,
) -> JSON:
    """A build with the id ``name``.

    A field ``ref ID`` of a component is to be what ID, a dependency of it, returned as ``out``.

    Args:
        name: the build's id.
        shape: one of `SHAPES`.
        size: how many components.
        randomness: decides what the shape leaves open.
        mixed: actions are drawn; without it everything is created.
        behaviours: of components, by id.
    """
    needs = SHAPES[shape](size, randomness)
    ids = [f"{TYPES[number % len(TYPES)]}::{number}" for number in range(size)]
    used = {need for each in needs for need in each}
    existing = [component(f"old::{number}", _state="completed", service=name) for number in range(3)]
    changes = []
    for number, each in enumerate(needs):
        refs = {
            f"ref {ids[need]}": f'$(components.#[_component_id="{ids[need]}"].out)'
            if place % 2
            else f'{{{{ components["{ids[need]}"].out }}}}'
            for place, need in enumerate(each)
        }
        action = "create"
        behaviour = dict((behaviours or {}).get(ids[number], {}))
        if mixed:
            others = ["update", "get"] if number in used else ["update", "get", "delete", "find", "none"]
            action = randomness.choice(["create", *others])
        if action == "find":
            behaviour["found"] = [f"found::{number}", f"found::{number}-b"]
        fields = {"behaviour": behaviour} if behaviour else {}
        changes.append(component(ids[number], action=action, **refs, **fields))
    if mixed:
        changes.append(component("old::0", action="delete"))
        changes.append(component("old::1", action="update", size=2))
    edges = ",".join(f"{ids[need]} {ids[number]}" for number, each in enumerate(needs) for need in each)
    document = build(*changes, edges=edges, id=name, components=existing)
    randomness.shuffle(document["changes"])
    return document


def plain(name: str, size: int, *, width: int, behaviours: Callable[[int], JSON] = lambda _: {}) -> JSON:
    """A build of many small components, in layers of ``width``, each behind one of the layer before."""
    changes, edges = [], []
    for number in range(size):
        change: JSON = {
            "_component_id": f"vm::{number}",
            "_component": "vm",
            "_action": "create",
            "_provider": "aws",
            "_state": "waiting",
            "service": name,
        }
        if number >= width:
            source = f"vm::{number - width}"
            change[f"ref {source}"] = f'$(components.#[_component_id="{source}"].out)'
            edges.append({"source": source, "destination": f"vm::{number}"})
        if behaviour := behaviours(number):
            change["behaviour"] = behaviour
        changes.append(change)
    return build(id=name, name=name) | {"changes": changes, "edges": edges}


def line(name: str, *changes: JSON) -> JSON:
    """A build whose changes depend on one another in turn, and refer to one another."""
    linked = [changes[0]]
    for before, after in pairwise(changes):
        source = before["_component_id"]
        linked.append({**after, f"ref {source}": f'{{{{ components["{source}"].out }}}}'})
    return build(*linked, edges=" ".join(change["_component_id"] for change in changes), id=name)
