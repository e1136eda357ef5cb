"""Keys of a component that a connector would mistake for the scheduler's own.

Connectors in Go match the names of fields without regard to case: beside a ``_state`` of the scheduler they
would read ``_State`` as the same field.
"""

from collections.abc import Mapping
from typing import Any

from scheduler.definition.model import SETTINGS
from scheduler.errors import Problem

_OURS = frozenset({"service", "_component_id", "_component", "_action", "_provider", "_state"})
_LONGEST_KEPT = 128
_MOST_KEPT = 8_192
_harmless: set[str] = set()
"""Keys that were looked at and are not mistakable: the same few stand in every component."""
_connectors: set[str] = set()
"""Keys that are not settings either: a connector may return them."""


def mistakable(place: str, component: Mapping[str, Any]) -> list[Problem]:
    """Return problems for top-level keys that differ from our own only in case; 0.3 us for none.

    Deeper down they are data: a policy has its ``Service``.

    Args:
        place: place of the component: ``changes[3]``.
        component: its fields.
    """
    return [
        Problem(
            f"{place}.{key}", f"is '{key.casefold()}' but for its case, which connectors do not tell apart"
        )
        for key in _mistaken(component)
    ]


def without_mistakable(component: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a connector's component without mistakable keys; 0.2 us if there are none."""
    wrong = _mistaken(component)
    return {key: value for key, value in component.items() if key not in wrong} if wrong else component


def from_connector(component: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a connector's component without mistakable keys, and without settings, which are not its own."""
    # One look for both, as nearly all keys are known.
    if _connectors.issuperset(component):
        return component
    kept = {key: value for key, value in without_mistakable(component).items() if key not in SETTINGS}
    if len(_connectors) + len(kept) > _MOST_KEPT:
        _connectors.clear()
    _connectors.update([key for key in kept if key in _harmless][:_MOST_KEPT])
    return kept


def _mistaken(component: Mapping[str, Any]) -> list[str]:
    if _harmless.issuperset(component):
        return []
    wrong = []
    for key in component:
        # As Go folds names: the long s and the kelvin sign count as s and k.
        if key not in _OURS and key.casefold() in _OURS:
            wrong.append(key)
        elif len(key) <= _LONGEST_KEPT:
            if len(_harmless) >= _MOST_KEPT:
                _harmless.clear()
            _harmless.add(key)
    return wrong
