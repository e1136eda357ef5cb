"""``scheduler completion SHELL``: a script that makes a shell complete our commands.

The scripts are short: at TAB they call ``scheduler __complete`` with the text typed so far, and offer the
lines that it prints. cyclopts finds the flag or argument under the cursor, and calls its completer
(`completers`) if the values are only known at run time.
"""

import io
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter

from scheduler.commands.catalogue import COMMANDS, NAMES
from scheduler.commands.completers import paths
from scheduler.commands.usage import bare, command_first

if TYPE_CHECKING:
    from cyclopts import App

_BASH = r"""# Completion of scheduler's commands in bash.
_scheduler_complete() {
    local program=${COMP_WORDS[0]} line
    type -P "$program" >/dev/null || program=scheduler
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <("$program" __complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null </dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/=] ]]; then
        compopt -o nospace
    fi
}
complete -F _scheduler_complete scheduler
"""
_ZSH = r"""#compdef scheduler
# Completion of scheduler's commands in zsh.
_scheduler() {
    local program=${(Q)words[1]} line
    local -a values shown folders
    (( $+commands[$program] )) || [[ -x $program ]] || program=scheduler
    while IFS= read -r line; do
        if [[ $line == *[/=] ]]; then
            folders+=("$line")
        else
            values+=("${line%%$'\t'*}")
            shown+=("${line/$'\t'/  -- }")
        fi
    done < <($program __complete zsh "${(@Q)words[2,CURRENT]}" 2>/dev/null </dev/null)
    (( $#values )) && compadd -l -d shown -a values
    (( $#folders )) && compadd -S '' -a folders
    (( $#values + $#folders ))
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _scheduler "$@"
else
    compdef _scheduler scheduler
fi
"""
_FISH = r"""# Completion of scheduler's commands in fish.
function __scheduler_complete
    set -l words (commandline -opc)
    set -l program $words[1]
    set -e words[1]
    command -q $program; or set program scheduler
    $program __complete fish $words (commandline -ct) 2>/dev/null </dev/null
end
complete --command scheduler --no-files --arguments '(__scheduler_complete)'
"""
_SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_CURSOR: Final = "\x01"
"""Marks the end of the typed text while it is split."""
_SPECIAL: Final = re.compile(r"[^\w@%+=:,./-]")
"""Characters that bash escapes with a backslash."""
_WORDS: Final = "CYCLOPTS_COMPLETION_WORDS"
"""Variable in which cyclopts expects the words to complete, each followed by `_UNIT`."""
_UNIT: Final = "\x1f"
"""Begins a line of cyclopts that is no candidate."""
_NOT_OFFERED: Final = frozenset({"-h", "--version"})
"""Flags of every command that are not worth offering."""


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="Shell to print the script for.")], /
) -> int:
    """Print a script that completes commands in a shell."""
    sys.stdout.write(_SCRIPTS[shell])
    return 0


def complete(app: "App", arguments: Sequence[str]) -> int:
    """Print the candidates for the text at the cursor, one a line; print nothing else, whatever happens.

    Args:
        app: the commands.
        arguments: the shell, and the typed text: for bash the line up to the cursor and the characters at
            which it breaks words, for others the words after our name.
    """
    shell, *typed = arguments or [""]
    quote, breaks = "", ""
    if shell == "bash" and len(typed) == 2:
        line, breaks = typed
        words, quote = split(line)
    else:
        words = list(typed)
    words = words or [""]
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # noqa: PTH123 - a name, no path
        found = candidates(app, words)
    for value, about in found:
        if not value.isprintable():
            continue
        if shell == "bash":
            sys.stdout.write(f"{in_bash(value, words[-1], quote, breaks)}\n")
        else:
            sys.stdout.write(f"{value}\t{about}\n" if about.isprintable() and about else f"{value}\n")
    return 0


def candidates(app: "App", words: Sequence[str]) -> list[tuple[str, str]]:
    """Return the candidates for the last of ``words``, each with a short description."""
    *before, last = words
    tokens, other = command_first(before, NAMES)
    if other is not None:
        return []
    if tokens and tokens[0] in NAMES:
        return _ask_cyclopts(app, [*tokens, last])
    if not last.startswith("-") and any(at == len(before) for at, _ in bare([*before, "command"])):
        return [(command.name, command.summary) for command in COMMANDS if command.name.startswith(last)]
    return _ask_cyclopts(app, ["serve", *before, last])


def _ask_cyclopts(app: "App", words: Sequence[str]) -> list[tuple[str, str]]:
    os.environ[_WORDS] = "".join(word.replace(_UNIT, "") + _UNIT for word in words)
    printed = io.StringIO()
    with redirect_stdout(printed):
        app(["__complete"], exit_on_error=False, print_error=False, result_action="return_value")
    prefix, found, last = "", [], words[-1]
    for line in printed.getvalue().partition(f"{_UNIT}begin\n")[2].splitlines():
        value, _, about = line.partition("\t")
        if value == f"{_UNIT}prefix":
            prefix = about
        elif value == f"{_UNIT}files":
            found += [(path, "") for path in paths(last.removeprefix(prefix))]
        elif value and not value.startswith(_UNIT) and value not in _NOT_OFFERED:
            found.append((value, about))
    return [(prefix + value, about) for value, about in found if (prefix + value).startswith(last)]


def split(line: str) -> tuple[list[str], str]:
    """Return the words after our name in ``line``, which ends at the cursor, and the quote open there."""
    for quote in ("", '"', "'"):
        try:
            _, *words = shlex.split(f"{line}{_CURSOR}{quote}")
        except ValueError:
            continue
        return [word.removesuffix(_CURSOR) for word in words], quote
    return [], ""


def in_bash(value: str, typed: str, quote: str, breaks: Iterable[str]) -> str:
    """Write a candidate so that bash can put it in place of the word at the cursor.

    That word begins after the last of ``breaks`` in the text that was ``typed``: with a colon among them, as
    is usual, ``vpc::web`` is three words to bash. Inside an open quote it is one.
    """
    if quote:
        return value
    begin = max((typed.rfind(character) + 1 for character in breaks if character in ":="), default=0)
    return _SPECIAL.sub(r"\\\g<0>", value[begin:])
