"""The sizes and borders of the code: what a reader may rely on."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import scheduler

PACKAGE = Path(scheduler.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_MODULE = 350
LONGEST_CLASS = 300
DIALECT = re.compile(r"(Who|What|Whoever|Nobody|Have|Of|Is|As|How|When|Where)\b")
"""Begins no docstring: rather a verb, or a noun of the glossary."""
REASON = "One file on purpose:"
"""Begins the sentence of a module's docstring that says why it is longer."""


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_long_module_says_why(path: Path) -> None:
    """It is read at one go, or its docstring has a reason."""
    text = path.read_text()
    if text.count("\n") > LONGEST_MODULE:
        assert REASON in " ".join((ast.get_docstring(ast.parse(text)) or "").split())


def test_no_class_is_longer_than_three_screens() -> None:
    """What grows beyond that has parts that deserve a name."""
    long = {
        f"{name_of(path)}: {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.end_lineno is not None
        if node.end_lineno - node.lineno + 1 > LONGEST_CLASS
    }
    assert not long


def strangers(tree: ast.Module) -> Iterator[str]:
    """Yield the private names that a module uses, and nothing in it defines."""
    own = {"_asdict", "_current_frames", "_exit", "_value_"}  # public, in spite of their names
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and of_self(node):
            own.add(node.attr)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            own.add(node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            own.add(node.value)  # as in ``__slots__``
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not of_self(node) and is_private(node.attr):
            if node.attr not in own:
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scheduler"):
            yield from (alias.name for alias in node.names if is_private(alias.name))


def of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def test_no_module_uses_the_private_names_of_another() -> None:
    """What others need has a public name."""
    found = [(name_of(path), list(strangers(ast.parse(path.read_text())))) for path in MODULES]
    assert [one for one in found if one[1]] == []


def test_a_docstring_begins_with_a_verb_or_a_noun() -> None:
    """It says what something does or is, not who does what."""
    found = [
        f"{name_of(path)}: {text.splitlines()[0]}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if (text := ast.get_docstring(node)) and DIALECT.match(text)
    ]
    assert found == []
