"""The command line: finds the command, and turns what goes wrong into one line and an exit code.

0 done; 1 a build errored or is invalid, is unknown, or the scheduler refuses, or something that is needed is
not there; 2 a wrong flag, variable
or command; 128 and the signal's number after a signal.
"""

import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scheduler import __version__
from scheduler.errors import InvalidSettings, SchedulerError

if TYPE_CHECKING:
    from cyclopts import App

OK, FAILED, USAGE = 0, 1, 2
_LAZY = {
    "serve": """Take builds from NATS and run them; so does no command at all.""",
    "run": """Submit a build, follow it live and print how it ends.

With --embedded a broker and a scheduler run in this process, with --simulate
connectors too: `scheduler run FILE --embedded --simulate` needs nothing else.""",
    "validate": """List every problem of a build, each with its place.""",
    "plan": """Show what a build will do, without running it.

Its waves, its critical path, the time that it takes under the limits, which
references can only be judged when due. Nothing is asked of any broker, but with
--ask.""",
    "graph": """Draw a build as DOT, Mermaid or SVG.

A file: what it is to do; a build by its id: how it stands.""",
    "simulate": """Answer for connectors of any type and provider, with made-up results.

Not beside real connectors: each request would be answered twice.""",
    "list": """List the builds that a scheduler has.

Those that run; with --all those that are over too.""",
    "status": """Show how a build stands.

How far it is, what runs, what failed and why, which limits are reached.""",
    "watch": """Follow a build live and print how it ends.

Exit code 0 if it is done, 1 if it errored. An interrupt leaves the build alone.""",
    "why": """Say what a build, or one of its components, waits for.

Since when, for which components, limit or connector, and what can be done.""",
    "timeline": """Show who ran when, and why it took as long as it did.

The critical path, waiting against working time, the slowest ten.""",
    "cancel": """Stop a build: nothing new starts, what is in flight is awaited.

It ends with an error, and can be retried.""",
    "pause": """Have nothing new start in a build, until it is resumed.""",
    "resume": """Let a paused build go on.""",
    "retry": """Try again what failed in a build, all of it or one component.

Also in a build that is over: it then runs once more, from where it stood.""",
    "skip": """Go on as if a component were done.

What depends on it may need what its connector would have returned: --output.""",
    "extend": """Give a component that runs more time until its timeout.""",
    "limit": """Change how many requests of a build run at a time, or start in a period.

For patterns of subjects: 'vpc.create.*=5' or '*.create.aws=20/s'.""",
    "demo": """Watch a build, with everything that it takes in this process.

Nothing is asked of any cloud, and nothing is left behind.""",
    "doctor": """Look at a broker, and say what to do before a service relies on it.

It tries what a service does: version, permissions, limits, streams, clocks, and
200 commits to a stream of its own, which is gone afterwards. Exit code 1 if a
service could not run.""",
    "release": """Have a build taken up again that schedulers died of.

A build that one after another ended of while they took it up is left alone, so
that it cannot keep the service from starting.""",
    "export": """Print a build's log as JSON lines.

Each record that was written, with its number and time in the stream, in order.
It holds whole builds, credentials that are in them included: those are shown
as ***, unless --secrets is given. The key of the reply subjects never is.""",
    "permissions": """Print a broker's configuration with the least permissions.

For the scheduler, connectors, and those who submit builds; it says how to use it.""",
}
"""The commands whose modules are loaded when they are called, with their help."""
_HOMES = {
    "list": "listing:list_",
    "status": "listing:status",
    **{name: f"control:{name}" for name in ("cancel", "pause", "resume", "retry", "skip", "extend", "limit")},
}
"""Where those are that share a module; any other has one of its own name."""
_COMMANDS = tuple(_LAZY)
_ROOT = ("--help", "-h", "--version")
"""Flags that are about all commands where none is named."""
_EPILOGUE = (
    "Flags are also variables, named beside them; where both are there, the flag counts. "
    "Exit codes: 0 done, 1 errored, invalid or refused, 2 wrong usage, 70 hung, 128 and the number after a "
    "signal."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` name (those of the process by default) and return the exit code.

    Without any the service runs, unless somebody typed that at a terminal.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if tokens == ["--version"]:
        # Answered without loading anything.
        sys.stdout.write(f"{__version__}\n")
        return OK
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # An id that the terminal's encoding does not have is shown escaped; it must not end the command.
            stream.reconfigure(errors="backslashreplace")
    _forget_empty_variables()
    try:
        if not tokens and sys.stdin.isatty() and sys.stdout.isatty():
            from scheduler.commands.usage import overview  # noqa: PLC0415 - `--version` does without

            sys.stdout.write(overview(_LAZY, __version__))
            return OK
        return _dispatch(tokens)
    except InvalidSettings as error:
        _complain(str(error))
        return USAGE
    except SchedulerError as error:
        _complain(str(error))
        return FAILED
    except BrokenPipeError:
        # Whoever read our output has gone; keep the interpreter from complaining of it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return 130


def _forget_empty_variables() -> None:
    """A variable that is set to nothing is one that is not set: compose files and unit files write those."""
    for name, value in list(os.environ.items()):
        if not value and name.startswith(("SCHEDULER_", "NATS_UR")):
            del os.environ[name]


def _dispatch(tokens: Sequence[str]) -> int:
    from cyclopts import CycloptsError  # noqa: PLC0415 - `--version` does without

    from scheduler.commands.usage import command_first, explain, unknown_command  # noqa: PLC0415

    tokens, other = command_first(tokens, _COMMANDS)
    if other is not None and tokens[0] == other:
        raise InvalidSettings(unknown_command(other, _COMMANDS))
    if not tokens or tokens[0] not in _COMMANDS:
        tokens = [token for token in tokens if token in _ROOT][:1] or ["serve", *tokens]
    app = build_app()
    try:
        result = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        raise InvalidSettings(explain(app, tokens, other, error, _COMMANDS)) from None
    return result if isinstance(result, int) else OK


def build_app() -> "App":
    """The commands; each one's module is loaded when it is called or asked for help."""
    from cyclopts import App  # noqa: PLC0415 - `--version` does without

    app = App(
        name="scheduler",
        help="Runs builds: dependency graphs of infrastructure components, over NATS.",
        help_epilogue=_EPILOGUE,
        help_format="plaintext",
        version=__version__,
    )
    for key, (name, text) in enumerate(_LAZY.items()):
        home = _HOMES.get(name, f"{name}:{name}")
        app.command(f"scheduler.commands.{home}", name=name, help=text, sort_key=key)
    return app


def _complain(text: str) -> None:
    sys.stderr.write(f"scheduler: {text}\n")
