"""Gates for scenarios, drawn from separate random numbers: what else happens with a seed does not change."""

import random
from typing import Any, TypeAlias

JSON: TypeAlias = dict[str, Any]

_SHARE = 0.15
"""Of the scenarios, so many have gates."""
_GATE_OF_EACH = 0.4


def put_gates(seed: int, builds: tuple[JSON, ...]) -> bool:
    """Sometimes have some components wait for people instead; returns whether any does."""
    rng = random.Random(f"gates {seed}")
    if rng.random() > _SHARE:
        return False
    placed = False
    for build in builds:
        referred = {key[5:] for change in build["changes"] for key in change if key.startswith("from-")}
        for change in build["changes"]:
            name = change["_component_id"]
            if name in referred or change["_action"] in {"update", "delete"} or rng.random() > _GATE_OF_EACH:
                continue
            placed = True
            change["_action"] = "approve"
            change.pop("_retry", None)
            change.pop("_timeout", None)
            if not decision(seed, build["id"], name) or rng.random() < 0.2:
                change["_timeout"] = rng.choice((3, 6))
    return placed


def decision(seed: int, build: str, component: str) -> str:
    """Return what people decide about a gate: ``approve``, ``reject``, or nothing."""
    return random.Random(f"gate {seed} {build} {component}").choice(("approve", "approve", "reject", ""))
