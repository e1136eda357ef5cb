"""Absence of JetStream: tells a broker without it from one where it is not ready yet."""

import msgspec
import structlog
import trio
from attrs import frozen

from scheduler.bus import Bus
from scheduler.bus.server import server_info
from scheduler.errors import NoResponders, NotPermitted, UnsupportedServer

_log = structlog.get_logger(__name__)

_QUESTION = "$JS.API.INFO"
_NOT_ENABLED = frozenset({10039, 10076})
"""Error codes of the server for an account without JetStream, and for a server without it."""
_TIMEOUT = 2.0
_PERIOD = 1.0
_CLUSTER = "in a cluster, most of its servers have to be up for it to have a leader; see their logs"


@frozen
class Absence:
    """Reason why JetStream cannot be used."""

    text: str
    cure: str = ""
    passing: bool = False
    """Whether it is worth asking again."""


NONE = Absence(
    "the broker has no JetStream, where builds are kept by default",
    "enable it (`jetstream {}` in the broker's configuration, and for the account), or choose --store ernest"
    " (an Ernest service-store), --store memory (builds end with the process), or --embedded (a broker of our"
    " own, which has it)",
)
REFUSED = Absence(
    "the broker does not permit us to ask for JetStream",
    "let us publish on $JS.API.INFO (`scheduler permissions` prints all that it takes)",
)


async def find_absence(bus: Bus) -> Absence | None:
    """Return why JetStream cannot be used right now; None where it can.

    Raises:
        BusError: the bus cannot be used.
    """
    try:
        with trio.fail_after(_TIMEOUT):
            answer = msgspec.json.decode((await bus.request(_QUESTION, b"")).data)
    except NoResponders:
        return NONE
    except NotPermitted:
        return REFUSED
    except trio.TooSlowError:
        return await _silence(bus)
    except msgspec.DecodeError:
        return Absence("what answers for JetStream cannot be read", passing=True)
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return None
    if error.get("err_code") in _NOT_ENABLED:
        return NONE
    return Absence(f"JetStream cannot work: {error.get('description')}", _CLUSTER, passing=True)


async def _silence(bus: Bus) -> Absence:
    # A subscriber to everything prevents the server's answer that nobody listens.
    info = await server_info(bus) if bus.connected else None
    if info is not None and not info.jetstream and not info.cluster:
        return NONE
    return Absence("JetStream does not answer", _CLUSTER, passing=True)


async def await_jetstream(bus: Bus) -> None:
    """Wait until JetStream's API answers, without limit; the wait is logged once.

    Raises:
        UnsupportedServer: the broker has no JetStream for this user; the message names the choices.
        BusError: the bus was closed.
    """
    said = False
    while (absence := await find_absence(bus)) is not None:
        if not absence.passing:
            raise UnsupportedServer(f"{absence.text}: {absence.cure}")
        if not said:
            _log.warning("waiting for JetStream", reason=absence.text, cure=absence.cure)
            said = True
        await trio.sleep(_PERIOD)
