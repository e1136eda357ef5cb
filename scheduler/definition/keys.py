"""Keys of a component that a connector would take for one of ours.

Connectors in Go match the names of fields without regard to case: beside a ``_state`` of ours they would read
``_State`` as that, or ours as it.
"""

from collections.abc import Mapping
from typing import Any

from scheduler.errors import Problem

_OURS = frozenset({"service", "_component_id", "_component", "_action", "_provider", "_state"})
_LONGEST_KEPT = 128
_MOST_KEPT = 8_192
_harmless: set[str] = set()
"""Keys that were looked at, and that nobody takes for one of ours: the same few stand in every component."""


def mistakable(place: str, component: Mapping[str, Any]) -> list[Problem]:
    """The keys at the top level of a component that are one of ours but for their case; 0.3 us without any.

    Deeper down they are data: a policy has its ``Service``.

    Args:
        place: of the component: ``changes[3]``.
        component: its fields.
    """
    return [
        Problem(
            f"{place}.{key}", f"is '{key.casefold()}' but for its case, which connectors do not tell apart"
        )
        for key in _mistaken(component)
    ]


def without_mistakable(component: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a connector returned without such keys: nobody is to take them for ours; 0.2 us without any."""
    wrong = _mistaken(component)
    return {key: value for key, value in component.items() if key not in wrong} if wrong else component


def _mistaken(component: Mapping[str, Any]) -> list[str]:
    if _harmless.issuperset(component):
        return []
    wrong = []
    for key in component:
        # As Go folds names: the long s and the sign for kelvin count as s and k.
        if key not in _OURS and key.casefold() in _OURS:
            wrong.append(key)
        elif len(key) <= _LONGEST_KEPT:
            if len(_harmless) >= _MOST_KEPT:
                _harmless.clear()
            _harmless.add(key)
    return wrong
