"""Asks again what gets no answer.

A server of a cluster that hangs keeps its members of a queue group for a minute and a half: what the others
hand on to them vanishes meanwhile, and nobody is told. For each request a server chooses a member anew. So
what is not answered is asked again on the same subject, a few times. An answer to any of the tries counts,
also one that comes while a later try is under way: a scheduler may just be slow.

All copies may be delivered in the end. Questions change nothing, a build is submitted under its id, and
orders have an id of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import trio

from scheduler.bus import Bus, Message
from scheduler.errors import NoResponders, SteeringError

SILENT: Final = "silent"
"""Code of an error: nobody answered in time."""

Pauses: TypeAlias = Sequence[float]
"""Seconds to wait for an answer after each try, before the next one, and after the last one."""
QUESTION: Final[Pauses] = (2.0, 2.0, 2.0, 2.0, 2.0)
"""Tries of a question or an order: 10 s in all."""
PAGE_OF_A_REPORT: Final[Pauses] = (2.0, 4.0, 8.0, 12.0, 14.0)
"""Tries of a question that a scheduler may take its 30 s for: 40 s in all."""
ONCE: Final[Pauses] = (2.0,)
"""One try, for those who ask from time to time anyway."""


async def request_again(
    bus: Bus,
    subject: str,
    data: bytes,
    pauses: Pauses = QUESTION,
    headers: Mapping[str, str] | None = None,
) -> Message:
    """Send a request, again while it gets no answer, and return the first answer to any of the tries.

    Args:
        bus: the connection.
        subject: subject of the request.
        data: its payload.
        pauses: seconds to wait after each try.
        headers: its headers.

    Raises:
        SteeringError: no answer came, with code ``silent``.
        NoResponders: nobody subscribes to the subject, as the server said of the first try, or of the last.
        BusError: the bus cannot be used.
    """
    outcome: Message | Exception | None = None
    # As many answers at most as there are tries: nothing waits for room.
    answers, coming = trio.open_memory_channel[Message | Exception](len(pauses))
    async with trio.open_nursery() as tries:
        for number, pause in enumerate(pauses):
            tries.start_soon(_try, bus, subject, data, headers, answers)
            outcome = await _outcome(coming, pause, first=not number)
            if outcome is not None and (not number or not isinstance(outcome, NoResponders)):
                break
        tries.cancel_scope.cancel()
    if isinstance(outcome, Message):
        return outcome
    try:
        raise outcome or SteeringError(SILENT, _silence(subject, pauses))
    finally:
        # Its traceback refers to this frame.
        del outcome


async def _outcome(
    coming: "trio.MemoryReceiveChannel[Message | Exception]", pause: float, *, first: bool
) -> Message | Exception | None:
    """Wait for an answer or an error, for so many seconds; None if there is neither.

    That nobody subscribes ends the first try at once. After a later one an earlier one may be answered yet,
    by somebody who has just unsubscribed; and somebody else may subscribe: a scheduler is being restarted.
    """
    nobody: NoResponders | None = None
    with trio.move_on_after(pause):
        while True:
            outcome = await coming.receive()
            if first or not isinstance(outcome, NoResponders):
                return outcome
            nobody = outcome
    return nobody


async def _try(
    bus: Bus,
    subject: str,
    data: bytes,
    headers: Mapping[str, str] | None,
    answers: "trio.MemorySendChannel[Message | Exception]",
) -> None:
    try:
        answers.send_nowait(await bus.request(subject, data, headers=headers))
    except Exception as error:  # noqa: BLE001 - it is raised by the one who asks
        answers.send_nowait(error)


def _silence(subject: str, pauses: Pauses) -> str:
    asked = "asked once" if len(pauses) == 1 else f"asked {len(pauses)} times"
    cure = "see `scheduler instances` and `scheduler doctor`"
    return f"no answer on {subject}, {asked} within {sum(pauses):g} s: {cure}"
