"""A test that hangs ends as a failure that says where; the others go on.

pytest-timeout raises from its signal's handler, wherever the main thread is. Inside Trio's loop that breaks
the loop, and what is left of it breaks later tests. So its timer is replaced by one that goes by Trio's rules
for Ctrl-C: where an exception may not be raised, the run is cancelled, and the failure shows all its tasks.
"""

import faulthandler
import os
import signal
import threading
import traceback
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import pytest_timeout  # type: ignore[import-untyped]
import trio

_GRACE = 10.0
"""Seconds from one stroke of the timer to the next, at most: two stop the test, the third one the process."""
_MOST_TASKS = 20
"""Tasks whose stacks are shown."""
_CORE = str(Path(trio.__file__).parent / "_core")
"""Places of frames that are not shown."""
_STRUCK = pytest.StashKey[str]()
"""Text of the timer, until the test has failed with it."""
_TASKS = pytest.StashKey[str]()
_TERMINAL = pytest.StashKey[int]()


class Hangs(BaseException):
    """A test has not ended in time. No `Exception`: hypothesis would look for a smaller one that hangs."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep a way to the terminal: the usual one is captured while tests run."""
    config.stash[_TERMINAL] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close it."""
    os.close(config.stash[_TERMINAL])


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """Take the place of pytest-timeout's own timer, where that would use the signal."""
    if settings.method != "signal" or threading.current_thread() is not threading.main_thread():
        return None
    terminal = item.config.stash[_TERMINAL]
    grace = min(_GRACE, settings.timeout)
    strokes = 0

    def strike(_: int, __: FrameType | None) -> None:
        __tracebackhide__ = True
        nonlocal strokes
        if pytest_timeout.is_debugging():
            return
        strokes += 1
        text = item.stash[_STRUCK] = f"{item.nodeid} has not ended within {settings.timeout:g} s"
        if strokes > 2:
            os.write(terminal, f"\n{text}, and cannot be ended\n{item.stash.get(_TASKS, '')}\n".encode())
            faulthandler.dump_traceback(terminal)
            os._exit(1)
        if not (trio.lowlevel.in_trio_run() and trio.lowlevel.currently_ki_protected()):
            raise Hangs(text)
        if _TASKS not in item.stash:
            item.stash[_TASKS] = _cancel()
            item.add_report_section("call", "Trio's tasks", item.stash[_TASKS])

    signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout, grace)
    # Code that never comes back to Python is beyond a handler in Python.
    faulthandler.dump_traceback_later(settings.timeout + 4 * grace, file=terminal, exit=True)
    return True


def pytest_timeout_cancel_timer() -> None:
    """Stop the timer, if it is ours."""
    faulthandler.cancel_dump_traceback_later()
    if signal.getsignal(signal.SIGALRM) not in {signal.SIG_DFL, None}:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a set-up that was interrupted."""
    __tracebackhide__ = True
    return (yield from _failing_if_struck(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that was interrupted."""
    __tracebackhide__ = True
    return (yield from _failing_if_struck(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Set the timer again, since a failure stops it, and fail a tear-down that was interrupted."""
    __tracebackhide__ = True
    settings = pytest_timeout._get_item_settings(item)
    if settings.timeout and not settings.func_only:
        item.config.pluginmanager.hook.pytest_timeout_set_timer(item=item, settings=settings)
    return (yield from _failing_if_struck(item))


def _failing_if_struck(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a cancelled test in any case, even one that ignored the cancellation."""
    __tracebackhide__ = True
    try:
        result = yield
    except BaseException as error:
        if (text := _stop(item)) and not isinstance(error, Hangs):
            raise Hangs(text) from error
        raise
    if text := _stop(item):
        raise Hangs(text)
    return result


def _stop(item: pytest.Item) -> str:
    """Return the text of the timer, if any. It must not interrupt while the text is being written."""
    text = item.stash.get(_STRUCK, "")
    if text:
        del item.stash[_STRUCK]
        pytest_timeout_cancel_timer()
    return text


def _cancel() -> str:
    """Cancel what Trio runs in this thread; returns the stacks of its tasks."""
    root = trio.lowlevel.current_root_task()
    if root is None or not root.child_nurseries:
        return ""
    # The innermost nursery of the root task is that of the main task alone.
    main = root.child_nurseries[-1]
    trio.lowlevel.current_trio_token().run_sync_soon(main.cancel_scope.cancel)
    return "\n".join(map(_stack, islice(_tasks(main), _MOST_TASKS)))


def _tasks(nursery: trio.Nursery) -> Iterator[trio.lowlevel.Task]:
    """All tasks below a nursery, children before their parents."""
    for task in nursery.child_tasks:
        for inner in task.child_nurseries:
            yield from _tasks(inner)
        yield task


def _stack(task: trio.lowlevel.Task) -> str:
    stack = traceback.StackSummary.extract(task.iter_await_frames())
    lines = traceback.StackSummary.from_list(frame for frame in stack if _CORE not in frame.filename).format()
    return f"{task.name}\n{''.join(lines)}"
