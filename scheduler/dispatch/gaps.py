"""Gaps: the times in which a reply may have come without this process hearing it.

A reply that comes while the connection is away is lost, unless a second connection hears it, or a stream
captures it. Both know of the connections of the bus alone, which are numbered (`Bus.generation`): a request
that was sent over an earlier one may have been answered in between.
"""

import structlog

from scheduler.bus import Bus, Listener
from scheduler.jetstream.capturing import StreamLayout, is_captured
from scheduler.plan import Request

_log = structlog.get_logger()

_MOST_UNCAPTURED = 100
"""Number of providers of which the log says that their replies are not captured; builds choose them."""


class Gaps:
    """Gaps of one process, and which replies are captured.

    Args:
        bus: connection on which replies to a request's own reply subject come in.
        shared: connection on which those on shared subjects do; may be the same.
        listener: second connection beside both, if there is one.
        layout: replies that streams capture, so that those in a gap are kept; None: they capture none.
    """

    def __init__(
        self, bus: Bus, shared: Bus, listener: Listener | None, layout: StreamLayout | None = None
    ) -> None:
        self.connection = bus.generation
        """Number of the bus's present connection, or of its last one."""
        self._bus = bus
        self._shared = shared
        self._listener = listener
        self._layout = layout
        self._providers = frozenset(layout.providers if layout else ())
        """Providers whose replies are captured, where that is so of some only."""
        self._uncaptured: set[str] = set()
        """Providers of which the log has said that their replies are not captured."""
        self._last = {True: 0, False: 0}
        """Number of the connection behind the last gap, for captured replies and for others; 0: none."""

    def watch(self) -> None:
        """Note gaps from now on."""
        self._bus.on_connected(self._on_connected)
        if self._shared is not self._bus:
            self._shared.on_connected(self._on_shared_connected)

    def last_for(self, request: Request) -> int:
        """Return the connection of the bus before which a reply may have been missed; 0: none was."""
        layout = self._layout
        return self._last[layout is not None and is_captured(layout, request.type, request.provider)]

    def leaves_out(self, request: Request) -> bool:
        """Return whether the replies of its provider are not captured; the log says so once."""
        provider = request.provider
        if not self._providers or provider in self._providers:
            return False
        if provider not in self._uncaptured and len(self._uncaptured) < _MOST_UNCAPTURED:
            self._uncaptured.add(provider)
            _log.warning(
                "replies of this provider are not captured: one that comes while no scheduler runs is lost",
                provider=provider,
                request=request.subject,
                cure="name it in --capture-providers",
            )
        return True

    def _on_connected(self) -> None:
        self.connection = self._bus.generation
        for captured in self._last:
            if self._listener is not None and self._listener.missed(captured=captured):
                self._last[captured] = self.connection

    def _on_shared_connected(self) -> None:
        # Replies on shared subjects were lost meanwhile, unless a stream or the second connection has them.
        if self._listener is None or not self._listener.connected:
            self._last[False] = self.connection + 1
