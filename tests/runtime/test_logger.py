"""Loggers that load structlog with their first line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LATE = """
import logging, sys, warnings
from scheduler.runtime.logger import Logger, configure_late

def configure():
    from scheduler.log import configure_logging
    configure_logging("warning", "json")

configure_late("warning", configure)
"""


def run(code: str) -> tuple[list[str], str]:
    """What is printed by, and what is logged in, a process that configures its log late."""
    tokens = [sys.executable, "-c", LATE + code + "\nprint('structlog' in sys.modules)"]
    done = subprocess.run(tokens, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize(
    "line", ["pass", "Logger().info('unheard')", "logging.getLogger('x').info('unheard')"]
)
def test_what_is_not_logged_does_not_load_structlog(line: str) -> None:
    """A line below the level is dropped, and structlog is not loaded for it."""
    assert run(line) == (["False"], "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Logger().warning('heard', size=1)", '"event": "heard", "size": 1}'),
        ("logging.getLogger('x').error('heard %d', 1)", '"event": "heard 1", "logger": "x"'),
        ("warnings.warn('heard', stacklevel=1)", "UserWarning: heard"),
        ("Logger().error('heard', password='hunter2')", '"password": "***"'),
    ],
)
def test_the_first_line_is_logged_as_configured(line: str, expected: str) -> None:
    """The first line, of ours or a library's, loads structlog, and is logged once, masked, in its format."""
    printed, logged = run(line)
    assert printed == ["True"]
    assert expected in logged
    assert len(logged.splitlines()) == 1


def test_the_level_is_that_of_structlog_afterwards() -> None:
    """Behind the first line the level still counts."""
    log = "log = Logger(); log.warning('one'); log.info('two'); log.error('three')"
    assert [line.partition('"event": ')[2] for line in run(log)[1].splitlines()] == ['"one"}', '"three"}']


def test_an_exception_is_logged_with_its_traceback() -> None:
    """A line about an exception says where it was raised."""
    _, logged = run("try:\n  1 / 0\nexcept ArithmeticError:\n  Logger().exception('failed')")
    assert "ZeroDivisionError" in logged
