"""Hints: parts of a build that are valid, but probably meant otherwise; a warning, no problems."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final

from scheduler.definition.model import SETTINGS, Build, Change, Component, State
from scheduler.definition.nearly import nearly
from scheduler.definition.places import Raw, join_place, raw_fields
from scheduler.definition.rules import OPTIONS
from scheduler.definition.secrets.places import is_secret_place
from scheduler.definition.template import Template
from scheduler.definition.template.paths import parse
from scheduler.definition.template.references import PathText
from scheduler.errors import Problem, TemplateError
from scheduler.runtime.yielding import yield_now

_STATE: Final = "_state"
_FIELDS: Final = (*SETTINGS, _STATE)
"""Fields that may be left out; a build without one of the others would be refused."""
_SHELL: Final = re.compile(r"\$\{([^{}]{1,2048}+)\}")
_MOST: Final = 20
"""Most hints for one build."""
_MOST_NAMES: Final = 1_000
"""Most names that are compared with the known ones."""
_MOST_TRIES: Final = 1_000
"""Most references that are looked up."""
_INDEX_DIGITS: Final = 10
_SHOWN: Final = 100
"""Characters of a text that are shown."""


def hints_for(
    build: Build, names: Collection[str], templates: Iterable[Template], *, expressions: bool
) -> list[Problem]:
    """Return hints on a build, at most 20.

    Args:
        build: a valid build.
        names: names of all fields of its components and changes that begin with ``_``.
        templates: templates of its changes.
        expressions: whether ``{{ }}`` is special.
    """
    every = chain(
        _fields(build, names), _options(build, templates), _shell_variables(build, expressions=expressions)
    )
    return list(islice(every, _MOST))


def _fields(build: Build, names: Collection[str]) -> Iterator[Problem]:
    """Yield names that are nearly those of the scheduler's own fields."""
    meant_by: dict[str, str] = {}
    for name in islice(sorted(names), _MOST_NAMES):
        meant = nearly(name, _FIELDS) if len(name) <= _SHOWN else None
        if meant is not None and not (meant == _STATE and _STATE in names):
            meant_by[name] = meant
    if not meant_by:
        return
    have: dict[str, list[str]] = {name: [] for name in meant_by}
    every: Sequence[Change | Component] = (*build.changes, *build.components)
    for component in every:
        # Each is decoded once, however many names are in question.
        fields = component.fields
        for name in meant_by.keys() & fields.keys():
            # With both in one component it is no mistake; a missing state is filled in.
            if meant_by[name] not in fields or meant_by[name] == _STATE:
                have[name].append(component.id)
    for name, ids in have.items():
        if ids:
            others = f" (and in {len(ids) - 1:,} other{'s' if len(ids) > 2 else ''})" if len(ids) > 1 else ""
            text = f"is unknown and has no effect; did you mean '{meant_by[name]}'?{others}"
            yield Problem(f"{ids[0]}.{name[:_SHOWN]}", text)


def _options(build: Build, templates: Iterable[Template]) -> Iterator[Problem]:
    """Yield unused keys of ``options`` that are nearly the scheduler's own: all others are the user's."""
    options = build.fields.get("options")
    if not isinstance(options, Mapping):
        return
    used: set[object] | None = None
    for key in islice(options, _MOST_NAMES):
        meant = nearly(key, OPTIONS) if len(key) <= _SHOWN else None
        if meant is None or meant in options:
            continue
        if used is None:
            used = {keys[0] for keys in options_read(templates) if keys}
        if key not in used:
            text = f"is unknown and has no effect; did you mean '{meant}'?"
            yield Problem(f"options.{key[:_SHOWN]}", text)


def options_read(templates: Iterable[Template]) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths in ``options`` that references read; an empty one stands for all of ``options``."""
    for template in templates:
        if template.spots is not None:
            # All of them are in components.
            continue
        for _, target in template.targets():
            if target.root in {"path", "build"} and target.keys[:1] in {("options",), ()}:
                yield target.keys[1:]


def _shell_variables(build: Build, *, expressions: bool) -> Iterator[Problem]:
    """Yield texts with ``${...}`` whose inside would be a reference in ``$(...)``."""
    changes = [one for one in build.changes if one.raw.find(b"${") >= 0 and one.state is not State.COMPLETED]
    ids = {one.id for one in build.components} | {one.id for one in build.changes} if changes else set()
    for change, place, found in islice(_variables(changes, expressions=expressions), _MOST_TRIES):
        meant = _meant(found[1], build, ids, whole=found[0] == found.string)
        if meant is not None:
            message = f"'{found[0][:_SHOWN]}' is plain text; did you mean '{meant[:_SHOWN]}'?"
            if is_secret_place(place, change):
                message = "a reference in ${ } is plain text; did you mean $( )?"
            yield Problem(f"{change.id}.{place}", message)


def _variables(
    changes: Iterable[Change], *, expressions: bool
) -> Iterator[tuple[Change, str, re.Match[str]]]:
    """Yield the parts of changes' texts that may be meant as references, with their places.

    Scripts are full of variables; within a longer text only unmistakable ones are looked at.
    """
    for change in changes:
        yield_now()
        fields = change.fields
        for place, text in _texts(fields, "", raw_fields(fields)):
            for found in _SHELL.finditer(text):
                if found[0] == text or (expressions and found[1].startswith("components.")):
                    yield change, place, found


def _texts(value: Any, place: str, raw: Raw | None) -> Iterator[tuple[str, str]]:
    """Yield the rendered strings in ``value``, with their places."""
    if isinstance(value, str):
        if "${" in value:
            yield place, value
        return
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        below = None if raw is None else raw.get(str(key))
        if below is None or below:
            yield from _texts(item, join_place(place, key), below)


def _meant(inside: str, build: Build, ids: Collection[str], *, whole: bool) -> str | None:
    """Return the reference that ``${inside}`` was meant to be; None if it leads to nothing in this build."""
    try:
        path = parse(inside)
    except TemplateError:
        return None
    text = PathText(f"$({inside})", path)
    if text.id is not None:
        if text.id not in ids:
            return None
        if whole:
            return text.source
        keys = "".join(f".{key}" if isinstance(key, str) else "[...]" for key in text.path)
        return f'{{{{ components["{text.id}"]{keys} }}}}'
    if path[0] == "components":
        return text.source if whole and len(path) > 1 else None
    value: Any = build.fields
    for key in path:
        if isinstance(value, list) and isinstance(key, str) and key.isdecimal():
            index = int(key) if len(key) < _INDEX_DIGITS else len(value)
            value = value[index] if index < len(value) else None
        else:
            value = value.get(key) if isinstance(value, Mapping) else None
    return text.source if whole and value is not None else None
