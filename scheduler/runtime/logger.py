"""Loggers that load structlog with their first line.

Loading it costs a command a fifth of its start, since it brings a terminal's whole rendering with it, and
nearly every command ends without a line in its log. `configure_late` is for those commands; a process that
configures structlog itself, as the service does, finds these loggers to be structlog's own.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any, Final

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
}


class _Late:
    """The configuration that waits for the first line."""

    def __init__(self) -> None:
        self.level = logging.NOTSET
        """Lines below it are dropped without being looked at."""
        self.configure: Callable[[], None] | None = None

    def catch_up(self) -> None:
        """Configure structlog now, if that is still to be done."""
        configure, self.configure, self.level = self.configure, None, logging.NOTSET
        if configure is not None:
            configure()


_late = _Late()


class Logger:
    """A structlog logger that is made when it is first used."""

    __slots__ = ("_logger",)

    def __init__(self) -> None:
        self._logger: Any = None

    def debug(self, event: str, **context: Any) -> None:
        """Log at level debug."""
        self._say("debug", event, context)

    def info(self, event: str, **context: Any) -> None:
        """Log at level info."""
        self._say("info", event, context)

    def warning(self, event: str, **context: Any) -> None:
        """Log at level warning."""
        self._say("warning", event, context)

    def error(self, event: str, **context: Any) -> None:
        """Log at level error."""
        self._say("error", event, context)

    def exception(self, event: str, **context: Any) -> None:
        """Log at level error, with the exception that is being handled."""
        self._say("exception", event, context)

    def _say(self, level: str, event: str, context: dict[str, Any]) -> None:
        if _LEVELS[level] < _late.level:
            return
        _late.catch_up()
        if self._logger is None:
            import structlog  # noqa: PLC0415 - the purpose of this module

            self._logger = structlog.get_logger()
        getattr(self._logger, level)(event, **context)


class _FirstRecord(logging.Handler):
    """Configures structlog at the first record of the standard library's logging, and hands it on."""

    def emit(self, record: logging.LogRecord) -> None:
        _late.catch_up()
        logging.getLogger(record.name).handle(record)


def configure_late(level: str, configure: Callable[[], None]) -> None:
    """Have the log configured by its first line; at once where structlog is loaded already.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``; lines below it are dropped meanwhile.
        configure: configures structlog, and replaces the handlers of the standard library's logging.
    """
    if "structlog" in sys.modules:
        configure()
        return
    _late.level, _late.configure = _LEVELS[level], configure
    logging.captureWarnings(capture=True)
    logging.basicConfig(level=max(_LEVELS[level], logging.WARNING), handlers=[_FirstRecord()], force=True)
