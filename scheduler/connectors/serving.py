"""A connector as a process: its signals, and the errors that end it."""

import signal
import threading
from collections.abc import Sequence

import trio

from scheduler.connectors.engine import Companion, Engine, Running
from scheduler.runtime.logger import Logger

log = Logger()


async def serve(  # noqa: ASYNC128 - the engine does
    engine: Engine, beside: Sequence[Companion], task_status: trio.TaskStatus[Running], *, signals: bool
) -> None:
    """Run an engine until SIGTERM, SIGINT or cancellation; errors come out as they are, not in groups.

    Args:
        engine: the engine.
        beside: what lives as long as it runs.
        task_status: started when the broker has the subscriptions.
        signals: whether signals end it; outside the main thread they never do.
    """
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            if signals and threading.current_thread() is threading.main_thread():
                await nursery.start(_obey_signals, engine)
            try:
                await engine.run(beside, task_status=task_status)
            except Exception as error:  # noqa: BLE001 - raised again below, outside the nursery
                failure = _single(error)
            nursery.cancel_scope.cancel()
    finally:
        log.info("connector has stopped", provider=engine.provider)
    if failure is not None:
        raise failure


def _single(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _obey_signals(engine: Engine, *, task_status: trio.TaskStatus[None]) -> None:
    """Stop at the first signal, and wait for nothing that is begun at the second."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        task_status.started()
        async for number in received:
            if engine.stopping.is_set():
                log.warning("stopping at once", signal=signal.Signals(number).name)
                engine.hurry()
            else:
                log.info("stopping", signal=signal.Signals(number).name)
                engine.stopping.set()
