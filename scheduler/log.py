"""Log of the process: one event a line on standard error, as JSON, or readable at a terminal.

Modules log with ``structlog.get_logger()``. Values bound by `structlog.contextvars` (the build, the
component) are in every line of the task that bound them, and of the tasks that it starts.
"""

import json
import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TypeAlias

import structlog

from scheduler.definition.secrets.names import MASK, is_secret_name
from scheduler.definition.secrets.patterns import mask_named, may_tell
from scheduler.runtime.logger import drop_below
from scheduler.text import mask_url, printable
from scheduler.tracing.lines import TRACED

EventDict: TypeAlias = MutableMapping[str, Any]

_PLAIN: Final = frozenset({type(None), bool, int, float})
_MAX_DEPTH = 6
"""Levels of a logged value that are searched for secrets; deeper ones are masked whole."""
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(level: str = "info", style: str = "auto") -> None:
    """Send all logging, ours and that of libraries, to standard error.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``; libraries log from ``warning`` on.
        style: ``json``, ``console``, or ``auto``: ``console`` if standard error is a terminal.
    """
    terminal = sys.stderr.isatty()
    readable = style == "console" or (style == "auto" and terminal)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_trace,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            # Made text already here: the console renderer would show local variables, passwords among them.
            structlog.processors.format_exc_info,
            mask_secrets,
            *(_readable(colors=terminal and not os.environ.get("NO_COLOR")) if readable else [_as_json]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_StderrLogger,
        cache_logger_on_first_use=False,
    )
    drop_below(_LEVELS[level])
    logging.captureWarnings(capture=True)
    logging.basicConfig(
        level=_LEVELS[level] if level == "debug" else max(_LEVELS[level], logging.WARNING),
        handlers=[_ToStructlog()],
        force=True,
    )


def add_trace(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Add the ids of trace and span to a line about a build that has a trace; a processor of structlog."""
    if TRACED and isinstance(build := event.get("build"), str) and (traced := TRACED.get(build)) is not None:
        component = event.get("component")
        event["trace_id"] = traced.trace_id
        event["span_id"] = traced.span_id(component if isinstance(component, str) else None)
    return event


def mask_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Mask values under or after a secret name, and users in URLs; a processor of structlog."""
    if _is_harmless(event):
        return event
    for key, value in event.items():
        event[key] = MASK if is_secret_name(key) and value is not None else _masked(value, _MAX_DEPTH)
    return event


def _is_harmless(event: EventDict) -> bool:
    """Whether nothing can be secret in a line; nearly always, and one look at all of it is enough."""
    texts = []
    for key, value in event.items():
        if type(value) is str:
            texts.append(value)
        elif type(value) not in _PLAIN:
            return False
        if is_secret_name(key):
            return False
    text = "\n".join(texts)
    return not may_tell(text) and not ("://" in text and "@" in text)


def _masked(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return mask_url(mask_named(value))
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, dict | list | tuple | set | frozenset) and depth == 0:
        return MASK
    if isinstance(value, dict):
        return {
            str(key): MASK if is_secret_name(str(key)) else _masked(item, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(item, depth - 1) for item in value]
    return mask_url(mask_named(str(value)))


def _as_json(_logger: object, _method: str, event: EventDict) -> str:
    first = {key: event.pop(key) for key in ("time", "level", "event") if key in event}
    fields = {**first, **event}.items()
    # As `json.dumps` writes it, which takes five times as long.
    return f"{{{', '.join([f'{_quoted(key)}: {_as_text(value)}' for key, value in fields])}}}"


def _as_text(value: Any) -> str:
    return _quoted(value) if type(value) is str else _encode(value)


_quoted: Final = json.encoder.encode_basestring_ascii
_encode: Final = json.JSONEncoder(default=str).encode


def _readable(*, colors: bool) -> list[Any]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors,
        timestamp_key="time",
        pad_event_to=0,
    )
    return [_printable_values, renderer]


def _printable_values(_logger: object, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = printable(value)
    return event


class _StderrLogger:
    """Logger that writes to the current ``sys.stderr``, which the live display replaces for a time."""

    def __init__(self, *_arguments: object) -> None:
        pass

    def msg(self, message: str) -> None:
        try:
            sys.stderr.write(message + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            # The log has no reader any more (a closed pipe), which is no reason to fail builds.
            return

    debug = info = warning = warn = error = critical = exception = log = msg


class _ToStructlog(logging.Handler):
    """Handler that passes records of the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        exception = record.exc_info if record.exc_info and record.exc_info[0] else None
        structlog.get_logger().log(level, text, logger=record.name, exc_info=exception)
