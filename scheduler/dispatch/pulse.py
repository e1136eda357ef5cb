"""Pulse of an attempt: what its heartbeats have said, and until when the next one has to come.

A heartbeat is a message on the subject that the request names in its header `HEARTBEAT`: nothing, or a JSON
object with ``instance``, ``progress`` from 0 to 1, and ``message``. It says that the connector still works;
it never completes or fails anything.
"""

from typing import Annotated, Final

import msgspec

from scheduler.dispatch.timers import Timer
from scheduler.errors import InvalidJSON
from scheduler.text import printable

HEARTBEAT: Final = "Scheduler-Heartbeat"
"""Header that names the subject for heartbeats of a request."""
WITHIN: Final = "Scheduler-Heartbeat-Within"
"""Header of requests whose attempt fails without heartbeats: the seconds within which another has to come."""
_MOST_BYTES: Final = 4 * 1024
"""Bytes of a heartbeat; one that is larger is not looked at."""
_MESSAGE: Final = 1_024
"""Bytes that are kept of a message."""
_INSTANCE: Final = 128
"""Characters that are kept of a connector's name for itself."""
_A_SECOND: Final = 10
"""Heartbeats of an attempt that are looked at in a second."""


class Beat(msgspec.Struct, gc=False):
    """One heartbeat, as it was sent."""

    instance: str | None = None
    progress: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    message: str | None = None


_DECODER: Final = msgspec.json.Decoder(Beat)


def read_beat(data: bytes) -> Beat:
    """Read a heartbeat.

    Raises:
        InvalidJSON: it is too large, no JSON object, or a part of it is of the wrong type.
    """
    if len(data) > _MOST_BYTES:
        raise InvalidJSON(f"it takes {len(data)} bytes; at most {_MOST_BYTES} are allowed")
    try:
        return _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        raise InvalidJSON(str(error)) from None
    except RecursionError:
        raise InvalidJSON("it is nested too deeply") from None


class Pulse:
    """Heartbeats of one attempt; there is one for each attempt that has had any, or is asked for them."""

    __slots__ = (
        "_looked",
        "_window",
        "heard",
        "instance",
        "lost",
        "message",
        "progress",
        "sent",
        "since",
        "timer",
        "within",
    )

    def __init__(self) -> None:
        self.instance = ""
        """Name that the connector gave itself last."""
        self.progress: float | None = None
        """Share of the work that is done, from 0 to 1; None where the connector says nothing of it."""
        self.message = ""
        """Last word of the connector about its work; may hold secrets."""
        self.heard: float | None = None
        """Time of the last heartbeat (Trio's clock, seconds); None before the first."""

        # Only where the absence of heartbeats fails the attempt.
        self.within = 0.0
        """Seconds within which another one has to come; 0: their absence fails nothing."""
        self.since = 0.0
        """Time from which that counts: of the first sending, or of the last heartbeat (`Timers.now`)."""
        self.sent = 0.0
        """Time of the last sending, likewise: from it all of the time counts, if anybody received that."""
        self.timer: Timer | None = None
        self.lost = False
        """Whether the connector is taken for lost, and the attempt is about to fail."""

        self._window = 0.0
        """Beginning of the second in which heartbeats are counted, Trio's clock."""
        self._looked = 0

    def beat(self, now: float) -> bool:
        """Note that a heartbeat came; return whether it is to be looked at.

        Args:
            now: Trio's clock, seconds.
        """
        self.heard = now
        if not 0 <= now - self._window < 1:
            self._window, self._looked = now, 0
        self._looked += 1
        return self._looked <= _A_SECOND

    def take(self, beat: Beat) -> bool:
        """Keep what a heartbeat says; return whether that is new. What it leaves out stays as it was."""
        old = self.instance, self.progress, self.message
        if beat.instance is not None:
            self.instance = beat.instance[:_INSTANCE]
        if beat.progress is not None:
            self.progress = beat.progress
        if beat.message is not None:
            self.message = beat.message.encode()[:_MESSAGE].decode(errors="ignore")
        return (self.instance, self.progress, self.message) != old

    def ends(self, anew: float, *, unheard: bool) -> float:
        """Return the time at which the connector is lost without another heartbeat, by `Timers.now`.

        Args:
            anew: time from which all connectors have their whole time again, likewise.
            unheard: whether nobody received the last copy of the request.
        """
        return max(self.since, anew, 0.0 if unheard else self.sent) + self.within

    @property
    def loss(self) -> str:
        """Text of the failure where the connector is lost."""
        last = "it never sent one"
        if self.heard is not None:
            last = f"the last one from {printable(self.instance)}" if self.instance else "it had sent some"
        return f"connector lost: no heartbeat for {self.within:g} s ({last})"
