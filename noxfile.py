"""Every check of the project: `nox` runs what has to pass, `nox -s NAME` one of them.

Versions and dependency groups live in `pyproject.toml` alone. What stands behind `--` goes to the tool.
"""

from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["lint", "types", "tests", "integration"]
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")
FLAKE8 = [
    # What ruff has not, without the rules that flake8-async leaves off by default.
    "--select=ASYNC1,ASYNC2,ASYNC3",
    "--extend-ignore=ASYNC114,ASYNC124",
]


def install(session: nox.Session, *groups: str) -> None:
    """Install the package as it is in the tree, and dependency groups."""
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, *groups))


def async_files(*folders: str) -> list[str]:
    """The files with anything asynchronous in them: others have nothing that flake8 is asked for."""
    files = (file for folder in folders for file in sorted(Path(folder).rglob("*.py")))
    return [str(file) for file in files if "async " in file.read_text()]


@nox.session
def lint(session: nox.Session) -> None:
    """Style, common mistakes, async mistakes, and who may import whom."""
    install(session, "lint")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    session.run("flake8", *FLAKE8, *async_files("scheduler", "tests", "benchmarks"))
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    install(session, "type", "bench")
    session.run("mypy", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Everything that needs no broker, on all cores."""
    install(session, "test")
    session.run(
        "pytest", "-n", "auto", "--dist", "worksteal", "-m", "not integration and not fuzz", *session.posargs
    )


@nox.session
def integration(session: nox.Session) -> None:
    """The real thing: a nats-server on a free port, processes that are killed."""
    install(session, "test")
    if session.posargs:
        session.run("pytest", "-m", "integration", *session.posargs)
        return
    session.run("pytest", "-n", "2", "--dist", "worksteal", "-m", "integration and not alone")
    session.run("pytest", "-m", "integration and alone")


@nox.session
def simulation(session: nox.Session) -> None:
    """Twenty thousand seeds of a simulated world, where `tests` runs fifteen hundred."""
    install(session, "test")
    session.run("pytest", "tests/simulation", *session.posargs, env={"SIMULATION_SEEDS": "0:20000"})


@nox.session
def fuzz(session: nox.Session) -> None:
    """A minute of random input for intake, reply and template."""
    install(session, "test")
    session.run("pytest", "-m", "fuzz", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Speed against the bare client loop of the same run: a table, a JSON file and a plot."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)
