"""Expressions in ``{{ }}`` within a string (WIRE: "References", form 2): finding and reading them.

Most expressions are just a path. Those never reach Jinja2: they are read by one regular expression and
followed by our own code, because component ids make nearly every one of them a different source text, and
compiling it would take a thousand times as long (0.3 to 0.5 ms for a short one, Jinja2 3.1.6).
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from scheduler.definition.template import grammar, sandbox
from scheduler.definition.template.grammar import Lookup
from scheduler.definition.template.sandbox import LookupReader
from scheduler.definition.template.work import free
from scheduler.errors import TemplateError, Unresolved

UNCLOSED = "'{{' without '}}'; name the field in _raw if it is meant literally"

_ROOT = re.compile(r"\s*+(components|build|component)(?![A-Za-z0-9_])")
_LINK = re.compile(
    r"""\s*+ (?: \. \s*+ ([A-Za-z][A-Za-z0-9_]*+)(?![^\W_])
    | \[ \s*+ (?: "([^"\\]*+)" | '([^'\\]*+)' | (-?[0-9]{1,9}+) ) \s*+ \] )""",
    re.VERBOSE,
)
_REST = re.compile(r"\s*+\Z")
_TOKEN = re.compile(r""" "(?:[^"\\]++|\\.)*+" | '(?:[^'\\]++|\\.)*+' | [{}"'] """, re.VERBOSE | re.DOTALL)
_COMMON = re.compile(
    r"""\{\{ \s*+ components\["([^"\\{}]++)"\] ((?:\.[A-Za-z][A-Za-z0-9_]*+)*+) \s*+ \}\}""", re.VERBOSE
)
_MANY = 32
"""Keys and expressions, together, from which on none of them is taken to be common."""


class Expression(NamedTuple):
    """An expression, ready to be evaluated."""

    lookups: tuple[Lookup, ...]
    guarded: tuple[bool, ...] = (False,)
    """Whether the expression may have a value without it, for each look-up."""
    nodes: int = 1
    program: grammar.Program | None = None

    def evaluate(self, reader: LookupReader) -> Any:
        """Return its value: JSON that is not null.

        Raises:
            Unresolved: something that it needs is absent or null.
            TemplateError: it cannot be evaluated, or its value is too large.
        """
        if self.program is not None:
            return sandbox.run(self.program, self.lookups, reader)
        value = reader.lookup(self.lookups[0])
        if value is None:
            raise Unresolved("is null")
        return value


def compile_expression(source: str, spend: Callable[[int], None] = free) -> Expression:
    """Compile the text between ``{{`` and ``}}``; ``spend`` is called with the work before it is done.

    Raises:
        TemplateError: it cannot be read, uses forbidden syntax, or is over a limit.
    """
    spend(64 + 4 * len(source))
    lookup = pure_path(source)
    if lookup is not None:
        if len(lookup.keys) > grammar.MAX_TREE:
            raise TemplateError(f"an expression nested more than {grammar.MAX_TREE} deep")
        return Expression((lookup,), nodes=1 + len(lookup.keys))
    return Expression(*grammar.parse(source, spend))


def pure_path(source: str) -> Lookup | None:
    """Return the look-up that ``source`` consists of; None leaves it to Jinja2's parser."""
    found = _ROOT.match(source)
    if found is None or len(source) > grammar.MAX_SOURCE:
        return None
    root = found[1]
    keys: list[str | int] = []
    end = found.end()
    while (link := _LINK.match(source, end)) is not None:
        name, double, single, index = link.groups()
        keys.append(int(index) if index is not None else name or double or single or "")
        end = link.end()
    if _REST.match(source, end) is None or (root == "components" and not (keys and isinstance(keys[0], str))):
        return None
    return Lookup(root, tuple(keys))


def split(text: str, spend: Callable[[int], None] = free) -> list[str | Expression]:
    """Split ``text`` into plain parts and expressions, in turn, without empty plain parts.

    Args:
        text: text of a user.
        spend: function that is called with the work, before each expression is read.

    Raises:
        TemplateError: an expression does not end, or is invalid, or there are too many nodes in all.
    """
    parts: list[str | Expression] = []
    nodes = 0
    at = 0
    while (start := text.find("{{", at)) >= 0:
        if start > at:
            parts.append(text[at:start])
        end = _end(text, start + 2)
        if end < 0:
            raise TemplateError(UNCLOSED)
        if text[start + 2] in "-+" or text[end - 1] in "-+":
            raise TemplateError("'{{-' and '-}}' are not known here; put a space between")
        expression = compile_expression(text[start + 2 : end], spend)
        nodes += expression.nodes
        if nodes > grammar.MAX_NODES:
            raise TemplateError(f"more than {grammar.MAX_NODES} nodes in its expressions")
        parts.append(expression)
        at = end + 2
    if at < len(text):
        parts.append(text[at:])
    return parts


def split_common(text: str) -> tuple[str | Expression, ...] | None:
    """Split short text with nothing but fields of components by name; None for any other."""
    split = _COMMON.split(text)
    if len(split) == 1 or text.count(".") + len(split) > _MANY:
        return None
    parts: list[str | Expression] = []
    for at in range(0, len(split), 3):
        plain = split[at]
        if plain:
            if "{{" in plain or plain[-1] == "{":
                return None
            parts.append(plain)
        if at + 1 < len(split):
            keys = split[at + 2].split(".")
            # The rest begins with a dot, if there is one.
            keys[0] = split[at + 1]
            parts.append(Expression((Lookup("components", tuple(keys)),), nodes=1 + len(keys)))
    return tuple(parts)


def _end(text: str, at: int) -> int:
    """Return the place of the ``}}`` that ends the expression at ``at``; -1 if there is none.

    One within a string literal does not end it, nor do braces that belong to an object in it.
    """
    depth = 0
    for found in _TOKEN.finditer(text, at):
        mark = found[0]
        if mark == "{":
            depth += 1
        elif mark == "}":
            if depth:
                depth -= 1
            elif text.startswith("}}", found.start()):
                return found.start()
        elif len(mark) == 1:
            return -1
    return -1
