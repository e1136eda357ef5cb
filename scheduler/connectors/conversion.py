"""Conversion of components to a handler's type and back, with what the type does not know.

A field stands in JSON under its own name, a leading ``_`` included, unless its type has another one: a
msgspec struct by ``rename``, an attrs class by ``alias``, and any class of attrs or dataclasses by
``Annotated[str, cattrs.override(rename="subnet-id")]``. A value of another type than declared is a
mistake and never converted, except for an integer where a ``float`` is declared, and what JSON has no type
for: dates, enums, UUIDs.

Fields that a type does not have are kept beside the object, in a reply as in those of its members that are
objects with a type of their own. In lists and dicts stands what the handler returned, and nothing else.
"""

import dataclasses
import types
import typing
import uuid
from collections import abc
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, get_args, get_origin, get_type_hints

import attrs
import msgspec
from cattrs import BaseConverter, Converter, override
from cattrs.errors import (
    BaseValidationError,
    IterableValidationError,
    IterableValidationNote,
    StructureHandlerNotFoundError,
)
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn
from cattrs.preconf.json import make_converter
from cattrs.v import format_exception, transform_error

from scheduler.connectors.outcomes import Rejected
from scheduler.definition.strictjson import kind

_MOST_NAMED: Final = 10
"""Mistakes in a component that its error names."""
_Override: Final = type(override())
_EXPECTED: Final[dict[type, str]] = {
    str: "a text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
}


def is_untyped(type_: Any) -> bool:
    """Whether a request is handed to its handler as the dict that it is."""
    return type_ is dict or type_ is Any or type_ is Mapping or _is_mapping(type_)


def _is_mapping(type_: Any) -> bool:
    origin = get_origin(type_)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def is_typed(type_: Any) -> bool:
    """Whether a type is one that a component can be converted to."""
    origin = get_origin(type_) or type_
    return isinstance(origin, type) and _is_class(origin)


def _is_class(type_: Any) -> bool:
    return attrs.has(type_) or dataclasses.is_dataclass(type_) or _is_struct(type_)


def _is_struct(type_: Any) -> bool:
    origin = get_origin(type_) or type_
    return isinstance(origin, type) and issubclass(origin, msgspec.Struct)


class _Mistyped(Exception):
    """A value of another type than declared; the message says what was expected and found."""


def _strictly(expected: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is expected:
            return value
        if expected is float and type(value) is int:
            return float(value)
        raise _Mistyped(f"expected {_EXPECTED[expected]}, got {kind(value)}")

    return structure


_LISTS: Final[dict[Any, Callable[[list[Any]], Any]]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    tuple: tuple,
    abc.Sequence: list,
    abc.MutableSequence: list,
    abc.Set: frozenset,
    abc.MutableSet: set,
}
"""Types that JSON has a list for, each with the function that makes one of a list."""


def _is_list(type_: Any) -> bool:
    origin, arguments = get_origin(type_) or type_, get_args(type_)
    # A tuple of unlike elements is cattrs' own affair.
    return origin in _LISTS and (origin is not tuple or not arguments or arguments[1:] == (...,))


def _structuring_list(type_: Any, converter: BaseConverter) -> Callable[[Any, Any], Any]:
    """Return the hook for a type of `_LISTS`: cattrs takes a text for the list of its characters."""
    element = (get_args(type_) or (Any,))[0]
    make, hook = _LISTS[get_origin(type_) or type_], converter.get_structure_hook(element)

    def structure(value: Any, _: Any) -> Any:
        if type(value) is not list:
            raise _Mistyped(f"expected a list, got {kind(value)}")
        items: list[Any] = []
        mistakes: list[Exception] = []
        for index, item in enumerate(value):
            try:
                items.append(hook(item, element))
            except Exception as error:  # noqa: BLE001 - of the element's type, raised below
                error.add_note(IterableValidationNote(f"element {index}", index, element))
                mistakes.append(error)
        if mistakes:
            raise IterableValidationError("of a list", mistakes, type_)
        return make(items)

    return structure


def _structure_uuid(value: Any, _: Any) -> uuid.UUID:
    if type(value) is not str:
        raise _Mistyped(f"expected the text of a UUID, got {kind(value)}")
    try:
        return uuid.UUID(value)
    except ValueError:
        raise _Mistyped("expected the text of a UUID") from None


def _structure_struct(value: Any, type_: Any) -> Any:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$")
        raise _Mistyped(f"{_lowered(text)}{_IN_STRUCT}{place.removesuffix('`')}") from None


_IN_STRUCT: Final = "\0"
"""Stands between a message and the place of a mistake within a struct, which msgspec tells."""


def _lowered(text: str) -> str:
    return (text[:1].lower() + text[1:]).replace("`", "'")


def _overrides(type_: Any) -> dict[str, Any]:
    """Return the names in JSON of the fields that have another one than their own."""
    if not attrs.has(get_origin(type_) or type_):
        return {}
    return {
        one.name: override(rename=one.alias)
        for one in attrs.fields(get_origin(type_) or type_)
        # attrs drops leading underscores by itself: that is for Python's sake, and says nothing of JSON.
        if one.alias is not None and one.alias != one.name.lstrip("_")
    }


def names_of(type_: Any) -> Mapping[str, str]:
    """Return the names of a type's fields, each with its name in JSON; not to be changed."""
    return _names_of(type_)


# Types of handlers and of their members, which are few; what is not kept is read again.
@lru_cache(maxsize=1_024)
def _names_of(type_: Any) -> Mapping[str, str]:
    origin = get_origin(type_) or type_
    if _is_struct(origin):
        return dict(zip(origin.__struct_fields__, origin.__struct_encode_fields__, strict=True))
    members = attrs.fields(origin) if attrs.has(origin) else dataclasses.fields(origin)
    names = {one.name: one.name for one in members}
    names |= {name: one.rename for name, one in _overrides(origin).items() if one.rename is not None}
    for name, hint in get_type_hints(origin, include_extras=True).items():
        for extra in get_args(hint)[1:] if get_origin(hint) is typing.Annotated else ():
            if isinstance(extra, _Override) and extra.rename is not None and name in names:
                names[name] = extra.rename
    return names


def _make_converter() -> Converter:
    converter: Converter = make_converter()
    for plain in _EXPECTED:
        converter.register_structure_hook(plain, _strictly(plain))
    converter.register_structure_hook_factory(
        _is_class,
        lambda type_: make_dict_structure_fn(type_, converter, **_overrides(type_)),
    )
    converter.register_unstructure_hook_factory(
        _is_class,
        lambda type_: make_dict_unstructure_fn(type_, converter, **_overrides(type_)),
    )
    converter.register_structure_hook_factory(_is_list, _structuring_list)
    converter.register_structure_hook(uuid.UUID, _structure_uuid)
    converter.register_unstructure_hook(uuid.UUID, str)
    converter.register_structure_hook_func(_is_struct, _structure_struct)
    converter.register_unstructure_hook_func(_is_struct, msgspec.to_builtins)
    return converter


_converter: Final = _make_converter()


def check(type_: Any) -> None:
    """Raise TypeError if a type has a field that no JSON can be converted to."""
    if is_untyped(type_):
        return
    try:
        _converter.get_structure_hook(type_)
        _converter.get_unstructure_hook(type_)
    except (StructureHandlerNotFoundError, NameError, TypeError) as error:
        raise TypeError(f"a request cannot be {type_!r}: {error}") from None


def structure(fields: Mapping[str, Any], type_: Any) -> Any:
    """Return a component as an object of a type, or as the dict that it is.

    Raises:
        Rejected: the component does not fit; the message names each place: ``subnet.cidr: expected a text``.
    """
    if is_untyped(type_):
        return dict(fields)
    try:
        return _converter.structure(fields, type_)
    except (BaseValidationError, _Mistyped) as error:
        mistakes = [_readable(text) for text in transform_error(error, "", _described)]
        more = f" (and {len(mistakes) - _MOST_NAMED} more)" if len(mistakes) > _MOST_NAMED else ""
        raise Rejected("; ".join(mistakes[:_MOST_NAMED]) + more) from None


def _described(error: BaseException, type_: type | None) -> str:
    # Also what the class itself says of a value, in a validator.
    text = str(error)
    return (
        text if text and not isinstance(error, KeyError | AttributeError) else format_exception(error, type_)
    )


def _readable(text: str) -> str:
    """Put the place before the mistake."""
    what, _, place = text.rpartition(" @ ")
    what, _, within = what.partition(_IN_STRUCT)
    place = f"{place}{within}".removeprefix(".")
    return f"{place}: {what}" if place else what


def fields_of(result: Any) -> dict[str, Any]:
    """Return the JSON object of what a handler returned.

    Raises:
        Rejected: it is neither an object with a type, nor a dict with texts as keys.
    """
    if type(result) is dict and _is_json(result):
        return result
    if isinstance(result, Mapping):
        document = _converter.unstructure(dict(result))
    elif _is_class(type(result)):
        document = _converter.unstructure(result)
    else:
        raise Rejected(f"the handler returned {_name(result)}, not a component")
    wrong = [key for key in document if not isinstance(key, str)]
    if wrong:
        raise Rejected(f"the handler returned a dict with {_name(wrong[0])} as a key")
    return typing.cast("dict[str, Any]", document)


_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_TEXTS: Final = frozenset({str})
_CONTAINERS: Final = frozenset({dict, list})


def _is_json(document: dict[Any, Any]) -> bool:
    """Whether there is nothing to convert in a dict: most handlers return what they got, and a text more."""
    todo: list[Any] = [document]
    for one in todo:
        values = one
        if type(one) is dict:
            if not _TEXTS.issuperset(map(type, one)):
                return False
            values = one.values()
        if not _PLAIN.issuperset(map(type, values)):
            inner = [value for value in values if type(value) not in _PLAIN]
            if not _CONTAINERS.issuperset(map(type, inner)):
                return False
            todo += inner
    return True


def _name(value: Any) -> str:
    return "a coroutine" if isinstance(value, types.CoroutineType) else type(value).__name__


def merged(result: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a component with what a handler returned for it over the fields that it had.

    Raises:
        Rejected: as for `fields_of`.
    """
    document = fields_of(result)
    if document is not result and not isinstance(result, Mapping):
        _keep_unknown(result, document, before)
    return {**before, **document}


def _keep_unknown(result: Any, document: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Put fields that the types of an object's members do not have beside those members, in place."""
    for name, key in names_of(type(result)).items():
        member, had, has = getattr(result, name), before.get(key), document.get(key)
        if isinstance(had, dict) and isinstance(has, dict) and _is_class(type(member)):
            known = set(names_of(type(member)).values())
            has.update({other: value for other, value in had.items() if other not in known})
            _keep_unknown(member, has, had)
