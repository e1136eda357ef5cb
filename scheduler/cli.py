"""Command line: finds the command, and turns an error into one line and an exit code.

0: done; 1: a build failed, is invalid or unknown, the scheduler refused, or something is missing; 2: a wrong
flag, variable or command; 124: `wait` timed out; 128 plus the signal's number: ended by a signal.
"""

import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scheduler import __version__
from scheduler.commands.catalogue import COMMANDS, LOOK, NAMES, OPERATE, RUN, STEER
from scheduler.errors import InvalidSettings, SchedulerError

if TYPE_CHECKING:
    from cyclopts import App

OK, FAILED, USAGE = 0, 1, 2
_FIRST = 1
"""Number of the first process of a container."""
_COMPLETE = "__complete"
"""Command by which a shell asks for completions."""
_HELP_ALL = "--help-all"
"""Flag that also shows the flags that nearly every command has."""
_HELP = ("--help", "-h")
_ROOT = (*_HELP, _HELP_ALL, "--version")
"""Flags about all commands, if no command is named."""
_EPILOGUE = (
    "scheduler COMMAND --help shows a command's flags, scheduler help the documents.\n"
    "Exit codes: 0 done; 1 errored, invalid or refused; 2 wrong usage; 70 hung; 124 timed out; 128 plus the"
    " number of a signal that ended it."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named by ``arguments`` (by default those of the process); return the exit code.

    Without arguments the service runs; at a terminal an overview is printed instead.
    """
    if os.getpid() == _FIRST:
        _heed_termination()
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if tokens == ["--version"]:
        # Answered without loading anything.
        sys.stdout.write(f"{__version__}\n")
        return OK
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # An id outside the terminal's encoding is shown escaped; it must not end the command.
            stream.reconfigure(errors="backslashreplace")
    _forget_empty_variables()
    try:
        if not tokens and sys.stdin.isatty() and sys.stdout.isatty():
            from scheduler.commands.usage import overview  # noqa: PLC0415 - `--version` does without

            sys.stdout.write(overview(COMMANDS, __version__))
            return OK
        return _dispatch(tokens)
    except InvalidSettings as error:
        _complain(str(error))
        return USAGE
    except SchedulerError as error:
        _complain(str(error))
        return FAILED
    except BrokenPipeError:
        # The reader of our output has gone; the interpreter must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return 130


def _heed_termination() -> None:
    """End by SIGTERM, as any other process does, until the command handles it.

    For the first process the system ignores a signal without a handler. A container that is stopped while it
    starts would go on, and be killed at the end of its grace period.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


def _forget_empty_variables() -> None:
    """Treat an empty variable as unset: compose files and unit files write empty ones."""
    for name, value in list(os.environ.items()):
        if not value and name.startswith(("SCHEDULER_", "NATS_UR", "NATS_CONTEXT")):
            del os.environ[name]


def _dispatch(tokens: Sequence[str]) -> int:
    from cyclopts import CycloptsError  # noqa: PLC0415 - `--version` does without

    from scheduler.commands.usage import command_first, explain, unknown_command  # noqa: PLC0415

    if tokens[:1] == [_COMPLETE]:
        from scheduler.commands.completion import complete  # noqa: PLC0415 - a shell asks

        return complete(build_app(), tokens[1:])
    tokens, other = command_first(tokens, NAMES)
    if other is not None and tokens[0] == other:
        raise InvalidSettings(unknown_command(other, NAMES))
    if not tokens or tokens[0] not in NAMES:
        tokens = [token for token in tokens if token in _ROOT][:1] or ["serve", *tokens]
    everything = _HELP_ALL in tokens
    app = build_app(everything=everything)
    if not everything and any(token in _HELP for token in tokens):
        from scheduler.commands.pages import HelpPages  # noqa: PLC0415 - it loads what renders help

        app.help_formatter = HelpPages()
    try:
        result = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        raise InvalidSettings(explain(app, tokens, other, error, NAMES)) from None
    return result if isinstance(result, int) else OK


def build_app(*, everything: bool = False) -> "App":
    """Build the commands; the module of each is loaded when it is called or its help is shown.

    Args:
        everything: whether help also shows the flags that nearly every command has.
    """
    from cyclopts import App, Group  # noqa: PLC0415 - `--version` does without

    app = App(
        name="scheduler",
        help="Runs builds: dependency graphs of infrastructure components, over NATS.",
        help_epilogue=_EPILOGUE,
        help_flags=(*_HELP, _HELP_ALL),
        help_format="plaintext",
        version=__version__,
    )
    for flag in ("--help", "--version"):
        app[flag].show = False
    groups = {name: Group(name, sort_key=key) for key, name in enumerate((RUN, LOOK, STEER, OPERATE))}
    for key, command in enumerate(COMMANDS):
        app.command(
            command.import_path,
            name=command.name,
            group=groups[command.group],
            help=command.help,
            help_epilogue=command.epilogue(everything=everything),
            sort_key=key,
        )
    return app


def _complain(text: str) -> None:
    sys.stderr.write(f"scheduler: {text}\n")
