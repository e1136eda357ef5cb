"""Values that fit a JSON Schema as those of the verbs are, and values that do not."""

from typing import Any

from hypothesis import strategies as st

from support.fakes import JSON
from support.schemas import Checker

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
"""Any JSON."""


def fitting(schema: JSON) -> st.SearchStrategy[Any]:
    """Values that are as a schema says, objects with members that it does not name among them."""
    if "anyOf" in schema:
        return st.one_of([fitting(one) for one in schema["anyOf"]])
    types = schema.get("type")
    if types is None:
        return anything
    if isinstance(types, list):
        return st.one_of([fitting({**schema, "type": one}) for one in types])
    if types == "object":
        return _objects(schema)
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True).filter(Checker(schema).fits)
    simple: dict[str, st.SearchStrategy[Any]] = {
        "array": st.lists(anything, max_size=3),
        "boolean": st.booleans(),
        "integer": st.integers(schema.get("minimum", -(10**20)), 10**20),
        "null": st.none(),
        "number": st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
        "string": st.text(min_size=schema.get("minLength", 0), max_size=5),
    }
    return simple[types]


def _objects(schema: JSON) -> st.SearchStrategy[JSON]:
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    named = st.fixed_dictionaries(
        {name: fitting(properties[name]) for name in required},
        optional={name: fitting(one) for name, one in properties.items() if name not in required},
    )
    names = st.text(max_size=5).filter(lambda name: name not in properties)
    others = st.dictionaries(names, fitting(schema.get("additionalProperties", {})), max_size=2)
    return st.builds(lambda one, other: {**other, **one}, named, others)


def unfitting(schema: JSON) -> st.SearchStrategy[Any]:
    """JSON values that are not as a schema says."""
    checker = Checker(schema)
    return anything.filter(lambda value: not checker.fits(value))
