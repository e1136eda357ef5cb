"""The grammar of expressions: an allow-list for the tree that Jinja2 parses, limited in size and depth.

Reading a build never happens in Jinja2: every chain of attributes and subscripts is taken out of the tree as
one `Lookup`, which `sandbox.LookupReader` answers with plain JSON. Expressions that differ only in their
look-ups share one program.
"""

import re
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import NamedTuple, TypeVar, cast
from weakref import WeakValueDictionary

import jinja2
from jinja2 import nodes
from jinja2.parser import Parser

from scheduler.definition.template.work import free
from scheduler.errors import TemplateError

MAX_SOURCE = 16 * 1024
"""Most characters of an expression."""
MAX_NODES = 500
"""Most nodes of the expressions in one string."""
MAX_WORDS = 8 * MAX_NODES
"""Most words and signs of an expression, counted before it is parsed: that takes 10 us for each."""
MAX_BITS = 1024
"""Most bits of an integer in an expression: more than 300 digits, and far fewer than Python writes."""
MAX_TREE = 40
"""Most levels of nesting in an expression."""

_WORDS = re.compile(
    r""" "(?:[^"\\]++|\\.)*+" | '(?:[^'\\]++|\\.)*+' | \w++ | [^\w\s] """, re.VERBOSE | re.DOTALL
)
_PARSING = 1_500
_PARSING_A_WORD = 600
"""Units of work for parsing an expression, and for each word of it."""

ROOTS = ("components", "build", "component")
"""Names that an expression may begin with."""


class Lookup(NamedTuple):
    """A chain of attributes and subscripts that begins with a name.

    A key of None is computed when the expression is evaluated.
    """

    root: str
    keys: tuple[str | int | None, ...]

    @property
    def id(self) -> str | None:
        """Id of the component, if it is a constant."""
        first = self.keys[0] if self.keys and self.root == "components" else None
        return first if isinstance(first, str) else None


class Program:
    """An expression without its look-ups. Its code is made when it is first run."""

    __slots__ = ("__weakref__", "nodes", "source")

    def __init__(self, source: str, size: int) -> None:
        self.source = source
        self.nodes = size


class ParsedExpression(NamedTuple):
    """An expression that may be run."""

    lookups: tuple[Lookup, ...]
    guarded: tuple[bool, ...]
    """Whether the expression can do without it, for each look-up."""
    nodes: int
    program: Program | None
    """Program to run; None if the expression is just one look-up."""


# fmt: off
_OPERATIONS = (
    nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test,
    nodes.Keyword, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Concat,
    nodes.Add, nodes.Sub, nodes.Neg, nodes.List, nodes.Dict, nodes.Pair, nodes.Tuple,
)
TESTS = frozenset({
    "defined", "undefined", "string", "number", "integer", "float", "boolean", "true", "false", "mapping",
    "sequence", "even", "odd", "in", "eq", "equalto", "ne", "lt", "lessthan", "le", "gt", "greaterthan", "ge",
    "==", "!=", "<", "<=", ">", ">=",
})
FILTERS = frozenset({
    "default", "lower", "upper", "trim", "string", "int", "float", "length", "first", "last", "join",
    "tojson", "title", "capitalize", "abs", "round", "sort", "unique",
})
# fmt: on
# Names that no template can contain: filters are checked against the allow-list before these are inserted.
LOOKUP = " lookup"
CONCAT = " concat"
WHOLE = " whole"
"""Filter for a list, tuple or object that is written: finds undefined parts of it."""
GIVEN = " given"
"""Filter for a value that must not be undefined."""
SIZED = " sized"
"""Filter for a value of which a part is copied."""
WEIGHED = " weighed"
"""Filter for a value that is compared with another."""


def parse(source: str, spend: Callable[[int], None] = free) -> ParsedExpression:
    """Read an expression and check it against the allow-list; ``spend`` is called before work.

    Raises:
        TemplateError: it cannot be read, uses forbidden syntax, or is over a limit.
    """
    words = sum(1 for _ in _WORDS.finditer(source[: MAX_SOURCE + 1]))
    if words > MAX_WORDS:
        raise TemplateError(f"more than {MAX_WORDS} words and signs in an expression")
    spend(_PARSING + _PARSING_A_WORD * words + len(source))
    tree, reading = read(source)
    alone = isinstance(tree, nodes.Filter) and tree.name == LOOKUP and len(reading.lookups) == 1
    alone = alone and None not in reading.lookups[0].keys
    program = None if alone else _share(tree, source, reading.count)
    return ParsedExpression(tuple(reading.lookups), tuple(reading.guarded), reading.count, program)


# For its lexer and parser only: nothing is ever compiled or run in it.
_parsing = jinja2.Environment()  # noqa: S701 - it renders nothing

_shared: WeakValueDictionary[bytes, Program] = WeakValueDictionary()


def _share(tree: nodes.Expr, source: str, count: int) -> Program:
    key = blake2b(repr(tree).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    program = _shared.get(key)
    if program is None:
        program = _shared[key] = Program(source, count)
    return program


def read(source: str) -> "tuple[nodes.Expr, _Reading]":
    """Return the tree to run for an expression, and the pass that read it.

    Raises:
        TemplateError: it cannot be read, uses forbidden syntax, or is over a limit.
    """
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"an expression of {len(source)} characters; the limit is {MAX_SOURCE}")
    try:
        reading = _Reading()
        return reading.convert(_parse(source), 1, guarded=False), reading
    except RecursionError as error:
        raise TemplateError("an expression nested too deep") from error
    except (jinja2.TemplateSyntaxError, ValueError) as error:
        # A ValueError is Python's, which does not read integers of thousands of digits.
        raise TemplateError(short(error)) from error


def _parse(source: str) -> nodes.Expr:
    parser = Parser(_parsing, source, state="variable")
    tree = parser.parse_expression()
    if not parser.stream.eos:
        raise TemplateError(f"cannot be read from '{str(parser.stream.current)[:80]}' on")
    return tree


_Node = TypeVar("_Node", bound=nodes.Node)


class _Reading:
    """One pass over a parsed expression: refuses, counts, and takes the look-ups out."""

    def __init__(self) -> None:
        self.count = 0
        self.lookups: list[Lookup] = []
        self.guarded: list[bool] = []

    def convert(self, node: _Node, depth: int, *, guarded: bool) -> _Node:
        """Return the tree to run in place of ``node``.

        ``guarded`` says that the expression may have a value without this part: it stands under ``default``
        or ``is defined``, or it need not be evaluated at all.
        """
        self.admit(node, depth)
        match node:
            case nodes.Name() | nodes.Getattr() | nodes.Getitem():
                lookup = self.lookup(node, depth, guarded=guarded)
                if lookup is not None:
                    return cast("_Node", lookup)
            case nodes.CondExpr():
                node.test = self.convert(node.test, depth + 1, guarded=guarded)
                node.expr1 = self.convert(node.expr1, depth + 1, guarded=True)
                if node.expr2 is not None:
                    node.expr2 = self.convert(node.expr2, depth + 1, guarded=True)
                return node
            case nodes.And() | nodes.Or():
                node.left = self.convert(node.left, depth + 1, guarded=guarded)
                node.right = self.convert(node.right, depth + 1, guarded=True)
                return node
            case nodes.Filter(name="default") | nodes.Test(name="defined" | "undefined"):
                guarded = True
        for name, value in node.iter_fields():
            if isinstance(value, nodes.Node):
                setattr(node, name, self.convert(value, depth + 1, guarded=guarded))
            elif isinstance(value, list):
                parts = [
                    self.convert(part, depth + 1, guarded=guarded) if isinstance(part, nodes.Node) else part
                    for part in value
                ]
                setattr(node, name, parts)
        return cast("_Node", _guarded(node))

    def admit(self, node: nodes.Node, depth: int) -> None:
        """Count ``node``, or refuse it."""
        self.count += 1
        if self.count > MAX_NODES:
            raise TemplateError(f"more than {MAX_NODES} nodes in an expression")
        if depth > MAX_TREE:
            raise TemplateError(f"an expression nested more than {MAX_TREE} deep")
        match node:
            case nodes.Const(value=int() as value) if value.bit_length() > MAX_BITS:
                raise TemplateError(f"an integer of {value.bit_length()} bits; the limit is {MAX_BITS}")
            case nodes.Filter():
                _admit_call("filter", node, FILTERS)
            case nodes.Test():
                _admit_call("test", node, TESTS)
            case nodes.Getattr(attr=attr) if attr.startswith("_"):
                raise TemplateError(
                    f'".{attr}" is not allowed; a field whose name begins with _ is ["{attr}"]'
                )
            case nodes.Name(name=name) if name not in ROOTS:
                raise TemplateError(f"there is no name '{name[:80]}' here; there are {', '.join(ROOTS)}")
            case _ if not isinstance(node, _OPERATIONS):
                raise TemplateError(f"{type(node).__name__} is not allowed in an expression")

    def lookup(self, node: nodes.Node, depth: int, *, guarded: bool) -> nodes.Expr | None:
        """Return ``node`` as one look-up, if it is a chain that begins with a name."""
        links: list[nodes.Getattr | nodes.Getitem] = []
        base: nodes.Node = node
        while isinstance(base, nodes.Getattr | nodes.Getitem):
            if isinstance(base, nodes.Getitem) and isinstance(base.arg, nodes.Slice):
                return None
            links.append(base)
            base = base.node
        if not isinstance(base, nodes.Name):
            return None
        keys: list[str | int | None] = []
        computed: list[nodes.Expr] = []
        for steps, link in enumerate(reversed(links), 1):
            if link is not node:
                self.admit(link, depth + steps)
            key = link.attr if isinstance(link, nodes.Getattr) else _constant(link.arg)
            if key is None:
                arg = cast("nodes.Getitem", link).arg
                computed.append(self.convert(arg, depth + 1, guarded=guarded))
            keys.append(key)
        if links:
            self.admit(base, depth + 1)
        if base.name == "components" and (not keys or isinstance(keys[0], int)):
            raise TemplateError('components are named by their id: components["..."]')
        self.lookups.append(Lookup(base.name, tuple(keys)))
        self.guarded.append(guarded)
        return _call(LOOKUP, nodes.List(computed, lineno=1), [nodes.Const(len(self.lookups) - 1, lineno=1)])


def _guarded(node: nodes.Node) -> nodes.Node:
    """Return ``node``, whose parts are converted, in a form in which nothing undefined passes unseen."""
    match node:
        case nodes.Concat():
            return _call(CONCAT, nodes.List(node.nodes, lineno=1), [])
        case nodes.List() | nodes.Tuple() if not all(isinstance(one, nodes.Const) for one in node.items):
            return _call(WHOLE, node, [])
        case nodes.Dict() if not all(isinstance(pair.value, nodes.Const) for pair in node.items):
            return _call(WHOLE, node, [])
        case nodes.Compare():
            if any(operand.op in {"in", "notin"} for operand in node.ops):
                # An empty list is compared with nothing.
                node.expr = _call(GIVEN, node.expr, [])
            node.expr = _weighed(node.expr)
            for operand in node.ops:
                operand.expr = _weighed(operand.expr)
        case nodes.Getitem(arg=nodes.Slice()):
            node.node = _call(SIZED, node.node, [])
        case nodes.Slice():
            node.start, node.stop, node.step = (
                None if one is None else _call(GIVEN, one, []) for one in (node.start, node.stop, node.step)
            )
    return node


def _weighed(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _call(WEIGHED, node, [])


def _constant(node: nodes.Node) -> str | int | None:
    if isinstance(node, nodes.Neg):
        value = _constant(node.node)
        return -value if isinstance(value, int) else None
    value = node.value if isinstance(node, nodes.Const) else None
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None


def _call(name: str, value: nodes.Expr, args: list[nodes.Expr]) -> nodes.Filter:
    return nodes.Filter(value, name, args, [], None, None, lineno=1)


def _admit_call(kind: str, node: nodes.Filter | nodes.Test, known: Iterable[str]) -> None:
    if node.name not in known:
        raise TemplateError(f"the {kind} '{node.name[:80]}' is not allowed")
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        raise TemplateError("* and ** are not allowed in an expression")


def short(error: Exception) -> str:
    """Return the message of an error from below, cut."""
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
