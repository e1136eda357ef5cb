"""Loggers that load structlog with their first line.

Loading structlog takes a fifth of a command's start, since it loads all that renders for a terminal, and
nearly every command ends without logging a line. `configure_late` is for those commands. In a process that
configures structlog itself, such as the service, these loggers are structlog's own.
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
    """Configuration that waits for the first line."""

    def __init__(self) -> None:
        self.level = logging.NOTSET
        """Lowest level that is logged; other lines are dropped at once."""
        self.configure: Callable[[], None] | None = None

    def catch_up(self) -> None:
        """Configure structlog now, unless that is done."""
        configure, self.configure, self.level = self.configure, None, logging.NOTSET
        if configure is not None:
            configure()


_late = _Late()


class _Floor:
    """Lowest level that is logged, as long as structlog is configured as it was then."""

    def __init__(self) -> None:
        self.level = logging.NOTSET
        self._configuration: Callable[[], dict[str, Any]] = dict
        self._wrapper: object = None
        """Class of structlog's loggers at that time."""

    def set(self, level: int) -> None:
        """Note a level, and the configuration that it is of."""
        import structlog  # noqa: PLC0415 - the purpose of this module

        self._configuration = structlog.get_config
        self._wrapper = structlog.get_config()["wrapper_class"]
        self.level = level

    def holds(self) -> bool:
        """Whether structlog is still configured like that."""
        return self._configuration()["wrapper_class"] is self._wrapper


_floor = _Floor()


def drop_below(level: int) -> None:
    """Drop lines below a level at once; to be called when structlog is configured for just that.

    To find out by structlog itself takes longer than most of what is logged about.
    """
    _floor.set(level)


class Logger:
    """Logger of structlog that is made when it is first used."""

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
        number = _LEVELS[level]
        if number < _late.level or (number < _floor.level and _floor.holds()):
            return
        _late.catch_up()
        if self._logger is None:
            import structlog  # noqa: PLC0415 - the purpose of this module

            self._logger = structlog.get_logger()
        getattr(self._logger, level)(event, **context)


class _FirstRecord(logging.Handler):
    """Handler that configures structlog at the standard library's first record, and passes that on."""

    def emit(self, record: logging.LogRecord) -> None:
        _late.catch_up()
        logging.getLogger(record.name).handle(record)


def configure_late(level: str, configure: Callable[[], None]) -> None:
    """Configure the log with its first line, or at once if structlog is already loaded.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``; lower lines are dropped meanwhile.
        configure: configures structlog, and replaces the handlers of the standard library's logging.
    """
    if "structlog" in sys.modules:
        configure()
        return
    _late.level, _late.configure = _LEVELS[level], configure
    logging.captureWarnings(capture=True)
    logging.basicConfig(level=max(_LEVELS[level], logging.WARNING), handlers=[_FirstRecord()], force=True)
