"""Markdown in a terminal."""

from typing import ClassVar, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Markdown, MarkdownElement
from rich.syntax import Syntax

_THEME: Final = "ansi_dark"


class _Code(CodeBlock):
    """Code that can be copied: it begins in the first column, as Python wants it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        yield Syntax(code, self.lexer_name, theme=_THEME, word_wrap=True, padding=(1, 0))


class Document(Markdown):
    """Document whose links are shown as texts.

    Args:
        text: the document.
    """

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "fence": _Code,
        "code_block": _Code,
    }

    def __init__(self, text: str) -> None:
        super().__init__(text, code_theme=_THEME, hyperlinks=False)
