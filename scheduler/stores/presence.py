"""Whether the broker has JetStream: one that has none is told from one where it is not ready yet."""

import msgspec
import structlog
import trio

from scheduler.bus import Bus
from scheduler.bus.server import server_info
from scheduler.errors import NoResponders, UnsupportedServer

_log = structlog.get_logger(__name__)

NO_JETSTREAM = (
    "the broker has no JetStream, where builds are kept by default: enable it (`jetstream {}` in the broker's"
    " configuration, and for the account), or choose --store ernest (an Ernest service-store), --store memory"
    " (builds end with the process), or --embedded (a broker of our own, which has it)"
)
_CURE_OF_REFUSAL = "let it publish on $JS.API.INFO (`scheduler permissions` prints all that it needs)"
_QUESTION = "$JS.API.INFO"
_NOT_ENABLED = frozenset({10039, 10076})
"""The server's errors for an account without JetStream, and for none at all."""
_TIMEOUT = 2.0
_PERIOD = 1.0


async def await_jetstream(bus: Bus) -> None:
    """Wait until JetStream's API answers, without limit; that it does not yet is logged once.

    Raises:
        UnsupportedServer: the broker has no JetStream for us; the message names the choices.
        BusError: the bus was closed.
    """
    refused = trio.Event()
    bus.on_refused(lambda subject: refused.set() if subject == _QUESTION else None)
    said = False
    while True:
        problem = await _problem(bus)
        if refused.is_set():
            raise UnsupportedServer(f"the broker does not permit us to ask for JetStream: {_CURE_OF_REFUSAL}")
        if problem is None:
            return
        if not said:
            _log.warning("waiting for JetStream", reason=problem)
            said = True
        await trio.sleep(_PERIOD)


async def _problem(bus: Bus) -> str | None:
    """Why JetStream cannot be used yet; None where it can.

    Raises:
        UnsupportedServer: there is none.
    """
    try:
        with trio.fail_after(_TIMEOUT):
            answer = msgspec.json.decode((await bus.request(_QUESTION, b"")).data)
    except NoResponders:
        raise UnsupportedServer(NO_JETSTREAM) from None
    except trio.TooSlowError:
        # Where something listens to everything, nobody says that there is none.
        info = await server_info(bus) if bus.connected else None
        if info is not None and not info.jetstream and not info.cluster:
            raise UnsupportedServer(NO_JETSTREAM) from None
        return "it does not answer"
    except msgspec.DecodeError:
        return "its answer cannot be read"
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return None
    if error.get("err_code") in _NOT_ENABLED:
        raise UnsupportedServer(NO_JETSTREAM)
    return str(error.get("description"))
