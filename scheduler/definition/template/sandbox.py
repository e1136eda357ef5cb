"""The closed part of Jinja2 for expressions, and running it.

The sandbox of Jinja2 keeps an expression away from Python, but not from unlimited memory and time: of 23
attacks, 11 reached a gigabyte or five seconds (Jinja2 3.1.6). So there are three walls. The parsed tree is
checked against an allow-list, and limited in size and depth. Everything that can make a value larger is a
filter of this module that looks at the size first, including concatenation and ``+``. And reading a build
does not happen in Jinja2 at all: every chain of attributes and subscripts becomes one `Lookup`, which the
caller answers with plain JSON.

Only ``default``, ``is defined`` and ``is undefined`` see undefined values. Jinja2 lets them into lists and
objects, and takes them for values in most tests; here they are refused there, with the name of what is
missing.

Expressions that differ only in their look-ups share one compiled program. One file on purpose: a filter
outside it would be outside the walls.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Protocol

import jinja2
from jinja2 import filters, nodes
from jinja2.environment import TemplateExpression
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import pass_context

from scheduler.definition.template import grammar
from scheduler.definition.template.grammar import Lookup, Program
from scheduler.definition.template.jsonparts import MAX_STRING, bounded, encode, measure, text_of
from scheduler.errors import SchedulerError, TemplateError, Unresolved
from scheduler.runtime.caches import ByteCache

MAX_PRECISION = 30
"""Most digits to which ``round`` rounds; Python would compute ten to any power."""

MAX_ATTRIBUTE = 2048
"""Most characters of an attribute for ``join``, ``sort`` and ``unique``."""

_PER_ELEMENT = 16
"""Units of work for each element that a filter looks at, or a comparison."""
_PER_STEP = 24
"""Units of work for each step to an attribute of one."""
_PER_COMPARISON = 3
_CALL = 160
"""Units of work for calling a filter or a test, besides."""
_RUN = 800
_RUN_A_NODE = 64
"""Units of work for evaluating an expression, and for each node of it."""
_COMPILE = 24_000
_COMPILE_A_NODE = 1_200
"""Units of work for making the code of a node."""
_CODE_OF_A_NODE = 3_000
"""Bytes of code for each node."""


class LookupReader(Protocol):
    """A source of answers for the look-ups of an expression, which also counts the work."""

    max_digits: int

    def lookup(self, lookup: Lookup, computed: Sequence[object] = ()) -> object:
        """Return the value of ``lookup``, as plain JSON; None if it is null.

        Raises:
            Unresolved: it leads to nothing.
            TemplateError: it cannot be followed.
        """
        ...

    def spend(self, work: int) -> None:
        """Account for work. Raises `TemplateError` if it is too much."""
        ...


def run(program: Program, lookups: tuple[Lookup, ...], reader: LookupReader) -> Any:
    """Return the value of an expression: JSON, measured and limited.

    Raises:
        Unresolved: something that it needs is absent or null.
        TemplateError: it cannot be evaluated, or its value is too large.
    """
    try:
        return _run(program, lookups, reader)
    except SchedulerError:
        raise
    except jinja2.UndefinedError as error:
        raise Unresolved(str(error)) from error
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise TemplateError(grammar.short(error)) from error
    except RecursionError as error:
        raise TemplateError("is nested too deep to evaluate") from error
    except Exception as error:
        # The boundary to code that strangers wrote: any exception from it is the failure of this one
        # component. Its type is named, so that a bug of ours shows in the report.
        raise TemplateError(f"{type(error).__name__}: {grammar.short(error)}") from error


def _run(program: Program, lookups: tuple[Lookup, ...], reader: LookupReader) -> Any:
    code = _codes.get(program)
    if code is None:
        reader.spend(_COMPILE + _COMPILE_A_NODE * program.nodes)
        code = _compiled(program)
        _codes.keep(program, code, _CODE_OF_A_NODE * (4 + program.nodes) + len(program.source))
    reader.spend(_RUN + _RUN_A_NODE * program.nodes)
    value = code(reader=reader, lookups=lookups)
    if isinstance(value, jinja2.Undefined) or value is None:
        raise Unresolved(_why(value))
    measure(value, reader.max_digits, reader.spend)
    return value


_codes: ByteCache[Program, TemplateExpression] = ByteCache(8 * 1024 * 1024)


def _compiled(program: Program) -> TemplateExpression:
    tree, _ = grammar.read(program.source)
    body: list[nodes.Node] = [nodes.Assign(nodes.Name("result", "store"), tree, lineno=1)]
    template = nodes.Template(body, lineno=1)
    template.set_environment(_environment)
    return TemplateExpression(_environment.from_string(template), undefined_to_none=False)


def _why(value: object) -> str:
    if not isinstance(value, jinja2.Undefined):
        return "is null"
    try:
        str(value)
    except jinja2.UndefinedError as error:
        return str(error)
    return "is undefined"


def _text(value: object, reader: LookupReader) -> str:
    """Return ``value`` as part of a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, jinja2.Undefined) or value is None:
        raise Unresolved(_why(value))
    measure(value, reader.max_digits, reader.spend)
    return text_of(value)


@pass_context
def _string(context: Context, value: object) -> str:
    return _text(value, context["reader"])


@pass_context
def _sized(context: Context, value: object) -> object:
    """Return a value of which a part is to be copied."""
    reader: LookupReader = context["reader"]
    reader.spend(_CALL + (len(value) >> 1 if isinstance(value, str | list | tuple) else 0))
    return value


@pass_context
def _weighed(context: Context, value: object) -> object:
    """Return a value that is to be compared with another."""
    reader: LookupReader = context["reader"]
    reader.spend(_CALL)
    weigh(value, reader.spend)
    return value


def weigh(value: object, spend: Callable[[int], None]) -> int:
    """Pay for looking at ``value`` and everything in it, however deep.

    Returns:
        The units of work.
    """
    if isinstance(value, str):
        spend(len(value) >> 2)
        return len(value) >> 2
    if not isinstance(value, list | tuple | dict):
        return 0
    total = 0
    todo: list[Any] = [value]
    while todo:
        one = todo.pop()
        work = _PER_ELEMENT * (1 + len(one))
        spend(work)
        letters = 0
        for item in chain(one, one.values()) if isinstance(one, dict) else one:
            if isinstance(item, str):
                letters += len(item)
            elif isinstance(item, list | tuple | dict):
                todo.append(item)
        spend(letters >> 2)
        total += work + (letters >> 2)
    return total


def _joined(context: Context, parts: Iterable[Any], separator: str = "") -> str:
    """Return the text of ``parts``, measured as it grows: a too large one is never made."""
    reader: LookupReader = context["reader"]
    texts: list[str] = []
    size = 0
    for part in parts:
        texts.append(_text(part, reader))
        size += len(texts[-1]) + len(separator)
        reader.spend(len(texts[-1]) + len(separator) + _PER_STEP)
        if size - len(separator) > MAX_STRING:
            break  # `bounded` refuses it below.
    return bounded(separator.join(texts))


def _given(value: Any) -> Any:
    """Return ``value``, unless it is undefined."""
    if isinstance(value, jinja2.Undefined):
        raise Unresolved(_why(value))
    return value


def _whole(value: Any) -> Any:
    """Return a list or an object; or an undefined part of it, so that ``default`` may step in."""
    for one in value.values() if isinstance(value, dict) else value:
        if isinstance(one, jinja2.Undefined):
            return one
    return value


@pass_context
def _look_up(context: Context, computed: list[object], number: int) -> object:
    """Return the value of a look-up; undefined if it leads to nothing, so that ``default`` may step in."""
    reader: LookupReader = context["reader"]
    for key in computed:
        if isinstance(key, jinja2.Undefined):
            return key
    try:
        return reader.lookup(context["lookups"][number], computed)
    except Unresolved as error:
        reader.spend(_CALL)
        return _environment.undefined(hint=str(error))


@pass_context
def _concatenate(context: Context, parts: list[object]) -> str:
    return _joined(context, parts)


@pass_context
def _join(context: Context, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    reader: LookupReader = context["reader"]
    if attribute is not None:
        _pay_for_attribute(reader, value, attribute)
        value = map(filters.make_attrgetter(context.environment, attribute), value)
    return _joined(context, value, _text(d, reader))


def _pay_for_attribute(reader: LookupReader, value: Any, attribute: object) -> None:
    """Account for looking at the same attribute of each element."""
    if isinstance(attribute, str) and len(attribute) > MAX_ATTRIBUTE:
        raise TemplateError(f"an attribute of {len(attribute)} characters; the limit is {MAX_ATTRIBUTE}")
    steps = 1 + (attribute.count(".") + attribute.count(",") if isinstance(attribute, str) else 0)
    reader.spend(_PER_STEP * steps * (2 + (len(value) if hasattr(value, "__len__") else 0)))


@pass_context
def _to_json(context: Context, value: object) -> str:
    reader: LookupReader = context["reader"]
    measure(value, reader.max_digits, reader.spend)
    return bounded(encode(value).decode())


@pass_context
def _round(_: Context, value: float, precision: Any = 0, method: Any = "common") -> float:
    if not isinstance(precision, int) or abs(precision) > MAX_PRECISION:
        raise TemplateError(f"round takes a precision of at most {MAX_PRECISION}")
    return filters.do_round(value, precision, method)


@pass_context
def _sort(
    context: Context, value: Any, reverse: Any = False, case_sensitive: Any = False, attribute: Any = None
) -> list[Any]:
    reader: LookupReader = context["reader"]
    # Each is compared with as many as its number has binary digits, and all the way down.
    total = weigh(value, reader.spend)
    if isinstance(value, list | tuple):
        times = len(value).bit_length()
        below = total - _PER_ELEMENT * (1 + len(value))
        reader.spend(len(value) * (_PER_STEP + _PER_COMPARISON * times) + below * times)
    if attribute is not None:
        _pay_for_attribute(reader, value, attribute)
        # A single element is compared with nothing.
        keys_of = filters.make_multi_attrgetter(context.environment, attribute)
        for one in value:
            for key in keys_of(one):
                _given(key)
    return filters.do_sort(context.environment, value, reverse, case_sensitive, attribute)


@pass_context
def _unique(context: Context, value: Any, case_sensitive: Any = False, attribute: Any = None) -> list[Any]:
    reader: LookupReader = context["reader"]
    weigh(value, reader.spend)
    if attribute is not None:
        _pay_for_attribute(reader, value, attribute)
    return list(filters.sync_do_unique(context.environment, value, case_sensitive, attribute))


def _weight(value: object) -> int:
    """Return the work of looking at all of ``value``, but not inside its elements."""
    return len(value) if isinstance(value, list | tuple | dict | str) else 0


def _counted(
    function: Callable[..., Any], times: int, context: Context, value: Any, *args: Any, **kwargs: Any
) -> Any:
    """Run a filter after paying for the size of its input."""
    if function is not filters.do_default:
        _given(value)
        if args or kwargs:
            for one in (*args, *kwargs.values()):
                _given(one)
    reader: LookupReader = context["reader"]
    reader.spend(_CALL + times * _weight(value))
    if getattr(function, "jinja_pass_arg", None) is not None:
        result = function(context, value, *args, **kwargs)
    else:
        result = function(value, *args, **kwargs)
    return bounded(result) if isinstance(result, str) else result


def _in_environment(function: Callable[..., Any]) -> Callable[..., Any]:
    @pass_context
    def with_environment(context: Context, *args: Any, **kwargs: Any) -> Any:
        return function(context.environment, *args, **kwargs)

    return with_environment


_FILTERS: Mapping[str, Callable[..., Any]] = {
    "default": filters.do_default,
    "lower": filters.do_lower,
    "upper": filters.do_upper,
    "trim": filters.do_trim,
    "string": _string,
    "int": filters.do_int,
    "float": filters.do_float,
    "length": len,
    "first": _in_environment(filters.sync_do_first),
    "last": _in_environment(filters.do_last),
    "join": _join,
    "tojson": _to_json,
    "title": filters.do_title,
    "capitalize": filters.do_capitalize,
    "abs": abs,
    "round": _round,
    "sort": _sort,
    "unique": _unique,
}
assert frozenset(_FILTERS) == grammar.FILTERS


_LABORIOUS: Mapping[str, int] = {"title": 16, "length": 0, "first": 0, "last": 0, "default": 0}
"""Units of work for each character and each element, where it is not 1."""


def _strict(name: str, test: Any) -> Any:
    """Return a test that refuses undefined values, unless it asks about them, and pays for its input."""
    if name in {"defined", "undefined"}:
        return test
    numeric = name in {"even", "odd"}

    @pass_context
    def strict(context: Context, *values: Any) -> Any:
        reader: LookupReader = context["reader"]
        reader.spend(_CALL)
        for value in values:
            weigh(_given(value), reader.spend)
            # For text, `%` would be Python's formatting, which makes text of any size.
            if numeric and not isinstance(value, int | float):
                raise TemplateError(f"'is {name}' asks about a number, and this is {type(value).__name__}")
        return test(*values)

    return strict


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with data that is looked up and nothing else: no methods, no globals, no loader."""

    intercepted_binops = frozenset({"+", "-"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return a field of an object or an element of an array, never a Python attribute of that name."""
        for one in (obj, argument):
            if isinstance(one, jinja2.Undefined):
                return one
        found = element(obj, argument)
        return self.undefined(hint=f"there is no {argument!r:.80}") if found is None else found

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute ``+`` and ``-``; the size of a sum is checked before it is made."""
        if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, type(left)):
            reader: LookupReader = context["reader"]
            reader.spend(_weight(left) + _weight(right))
        result = super().call_binop(context, operator, left, right)
        return bounded(result) if isinstance(result, str) else result


def element(value: object, key: object) -> Any:
    """Return the value under ``key`` in the JSON ``value``; None if there is none, or null."""
    if isinstance(value, dict):
        return value.get(key) if isinstance(key, str) else None
    if isinstance(value, list | tuple | str) and isinstance(key, int) and not isinstance(key, bool):
        return value[key] if -len(value) <= key < len(value) else None
    return None


def _make_environment() -> _Environment:
    # Not optimized: the optimizer would evaluate constant parts, and that while compiling.
    environment = _Environment(undefined=jinja2.StrictUndefined, loader=None, optimized=False, cache_size=0)
    environment.globals.clear()
    environment.tests = {name: _strict(name, TESTS[name]) for name in grammar.TESTS}
    environment.filters = {
        grammar.LOOKUP: _look_up,
        grammar.CONCAT: _concatenate,
        grammar.WHOLE: _whole,
        grammar.GIVEN: _given,
        grammar.SIZED: _sized,
        grammar.WEIGHED: _weighed,
    }
    for name, function in _FILTERS.items():
        environment.filters[name] = pass_context(partial(_counted, function, _LABORIOUS.get(name, 1)))
    return environment


_environment = _make_environment()
