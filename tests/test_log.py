"""The log: its forms, and what it never holds."""

import json
import logging
import math
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from scheduler.definition.secrets.names import MASK
from scheduler.log import configure_logging, mask_secrets
from scheduler.runtime.logger import Logger


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What standard error has got; the log is as it was afterwards."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    structlog.contextvars.clear_contextvars()
    yield lambda: capsys.readouterr().err
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_log_is_json_where_nobody_watches(stderr: Callable[[], str]) -> None:
    """In a pipe each event is a JSON object on a line, with UTC time, level and what is bound."""
    configure_logging()
    with structlog.contextvars.bound_contextvars(build="b", component="c"):
        structlog.get_logger().info("sent", number=1)
    structlog.get_logger().debug("too fine")
    (line,) = stderr().splitlines()
    event = json.loads(line)
    assert list(event)[:3] == ["time", "level", "event"]
    assert event["time"].endswith("Z")
    del event["time"]
    assert event == {"level": "info", "event": "sent", "build": "b", "component": "c", "number": 1}


FIELDS = st.dictionaries(
    st.text("abcxyz_", min_size=1),
    st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.text())),
)


@pytest.mark.usefixtures("stderr")
def test_a_line_is_as_json_writes_it() -> None:
    """Every character beyond ASCII is escaped, whatever a terminal or a file makes of it."""
    configure_logging(style="json")
    write = structlog.get_config()["processors"][-1]

    @given(FIELDS)
    def check(fields: dict[str, Any]) -> None:
        event = {"level": "info", "event": "x", **fields}
        assert write(None, "info", dict(event)) == json.dumps(event)

    check()


def test_a_level_counts_as_long_as_the_log_is_configured_for_it(stderr: Callable[[], str]) -> None:
    """Lines below it are dropped before structlog sees them; another configuration sees them all."""
    log = Logger()
    configure_logging("error", "json")
    log.info("dropped")
    assert stderr() == ""
    configure_logging("info", "json")
    log.info("heard")
    assert "heard" in stderr()
    configure_logging("error", "json")
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as lines:
        log.info("heard as well")
    assert [line["event"] for line in lines] == ["heard as well"]


def test_the_log_never_holds_secrets(stderr: Callable[[], str]) -> None:
    """Values under telling names and users in URLs are masked, at any depth."""
    configure_logging()
    log = structlog.get_logger()
    log.info(
        "connected to nats://u:hunter2@h",
        password="hunter2",
        options={"Token": "hunter2", "l": [{"api_key": "hunter2"}]},
    )
    try:
        int("nats://u:hunter2@h")
    except ValueError:
        log.exception("failed", aws_secret_access_key="hunter2")
    logging.getLogger("nats").error("lost %s", "nats://u:hunter2@h")
    text = stderr()
    assert "hunter2" not in text
    assert len(text.splitlines()) == 3


def test_values_nested_too_deep_to_check_are_not_logged() -> None:
    """What is too deep to be looked through is masked as a whole."""
    value: object = "deep"
    for _ in range(20):
        value = [value]
    assert "deep" not in str(mask_secrets(None, "", {"value": value}))
    assert mask_secrets(None, "", {"token": None, "n": math.pi}) == {"token": None, "n": math.pi}
    assert mask_secrets(None, "", {"password": "x"}) == {"password": MASK}


def test_the_readable_log_has_no_local_variables_and_no_escapes(stderr: Callable[[], str]) -> None:
    """A traceback for people shows no variables, and a hostile value cannot drive the terminal."""
    configure_logging(style="console")
    hidden = "hunter" + "2"
    try:
        int(hidden, base=2)
    except ValueError as error:
        structlog.get_logger().error(
            "failed", exc_info=error.with_traceback(error.__traceback__), id="a\x1b[2Jb"
        )
    text = stderr().replace("invalid literal for int() with base 2: 'hunter2'", "")
    assert "Traceback" in text
    assert "hunter2" not in text
    assert "\x1b[2J" not in text


def test_a_log_that_nobody_reads_any_more_fails_nobody(
    monkeypatch: pytest.MonkeyPatch, stderr: Callable[[], str]
) -> None:
    """A closed standard error does not raise into the code that logs."""
    configure_logging()
    closed = StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    structlog.get_logger().error("lost")
    monkeypatch.undo()
    assert not stderr()
