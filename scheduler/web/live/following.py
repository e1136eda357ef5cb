"""Follows one build: keeps the table of its states, and the answer to ``get``, up to date.

Events come from whichever instance owns the build. Every two seconds its owner is asked for what no event
tells: the expected end, the limits reached. Where its answer has a later event than came here, as after an
outage or where the broker does not let this user hear events, the whole build is fetched again.
"""

import secrets
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
import structlog
import trio

from scheduler.bus import Bus, Message
from scheduler.client.lenient import text, whole
from scheduler.client.timeline import FINISHED
from scheduler.control.verbs import Document
from scheduler.definition.subjects import EVENTS
from scheduler.definition.tokens import encode_token
from scheduler.errors import BusError, Refused
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.web.live.table import StateTable, table_of
from scheduler.web.page.asking import OWNER, Desk
from scheduler.web.page.structure import Whole
from scheduler.web.page.wholes import Wholes

_ASK: Final = 2.0
"""Seconds between two questions about the build."""
_CATCH_UP: Final = 2.0
"""Seconds between two fetches of the whole build, at least ..."""
_SHARE: Final = 20.0
"""... and for each second that the last one took. One that failed waited, and cost next to nothing."""
_MOST_BYTES: Final = 4 * 1024 * 1024
"""Bytes of events that are kept until they are read; beyond that the whole build is fetched."""
_AGAIN: Final = 5.0
"""Seconds until it is tried again to hear events."""

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Following:
    """State of one build, kept up to date while somebody looks at it.

    Args:
        build: its id.
        bus: connection on which its events are heard.
        desk: place to ask.
        wholes: fetch whole builds.
        stir: called when there may be something new.
    """

    def __init__(self, build: str, bus: Bus, desk: Desk, wholes: Wholes, stir: Callable[[], None]) -> None:
        self.build = build
        self.summary: Document = {}
        """Last answer to ``get``."""
        self.table: StateTable | None = None
        """States; None until the build was fetched."""
        self.key = ""
        """Key of its structure."""
        self.fetched = 0
        """Number of times that all of it was fetched."""
        self.trouble = ""
        """Why this may be old; empty where it is not."""
        self._unknown = False
        self.gone = False
        """Whether there is no such build any more."""
        self._bus = bus
        self._desk = desk
        self._wholes = wholes
        self._stir = stir
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._missed = False
        self._expected = 0
        """Number of the last event by the last answer; by the next answer it should have come."""
        self._ask = trio.Event()
        self._wanted = trio.Event()
        """Event set when the whole build is needed."""
        self._generation = bus.generation
        self._log = RateLimitedLog(structlog.get_logger())

    @property
    def ended(self) -> bool:
        """Whether the build has ended, by the last answer, and all of it is in the table."""
        table = self.table
        if self.gone:
            return table is not None and bool(table.end)
        if table is None or table.behind or self.summary.get("status") not in FINISHED:
            return False
        if self.summary.get("report"):
            # It is being stored. Nobody would be told any more that it is there, and when the build ended.
            return False
        return table.sequence >= whole(self.summary.get("seq"))

    async def run(self) -> None:
        """Follow; never returns."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._listen)
            nursery.start_soon(self._keep_asking)
            await self._keep_whole()

    async def read(self) -> None:
        """Apply what came since the last time; other tasks run in between."""
        table = self.table
        if table is None or (self._is_behind(table) and not self.gone):
            # Kept until the build was fetched: most of it comes after that.
            return
        while self._messages:
            data = self._messages.popleft()
            self._bytes -= len(data)
            self._apply(table, data)
            await trio.lowlevel.checkpoint()
        # Known now, and not when somebody reads next, which may be in two seconds.
        self._is_behind(table)
        if table.end and not self.ended:
            self._ask.set()

    def _apply(self, table: StateTable, data: bytes) -> None:
        try:
            message = _decode(data)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return
        if message.get("build") == self.build:
            table.apply(message)

    def _is_behind(self, table: StateTable) -> bool:
        if self._bus.generation != self._generation:
            # What was published meanwhile did not come here.
            self._generation, self._missed = self._bus.generation, True
        if table.behind or self._missed:
            self._wanted.set()
            return True
        return False

    # ---- events

    async def _listen(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Hear events until cancelled; started when they are heard, or cannot be."""
        subject, begun = f"{EVENTS}{encode_token(self.build)}", False
        # In a group of its own, so that another connection stands in while this one is away.
        group = f"page.{secrets.token_hex(6)}"
        while True:
            try:
                subscription = await self._bus.subscribe(subject, self._take, queue=group)
            except BusError as error:
                self._log.info(
                    "a build is looked at every few seconds, as events are not heard", why=str(error)
                )
                if not begun:
                    begun = True
                    task_status.started()
                await trio.sleep(_AGAIN)
                continue
            if not begun:
                task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(1, shield=True):
                    await subscription.unsubscribe()

    def _take(self, message: Message) -> None:
        self._messages.append(message.data)
        self._bytes += len(message.data)
        if self._bytes > _MOST_BYTES:
            self._messages.clear()
            self._bytes = 0
            self._missed = True
        self._stir()

    # ---- questions

    async def _keep_asking(self) -> None:
        while True:
            with trio.move_on_after(_ASK):
                await self._ask.wait()
            self._ask = trio.Event()
            try:
                self.summary = await self._desk.ask("get", {"id": self.build, "components": False})
            except Refused as refused:
                self._refused(refused)
            else:
                self.trouble, self._unknown = self._desk.trouble(), False
                # Whoever is told of the end asks for the rest at once.
                self._wholes.note(self.build, self.summary)
                table = self.table
                if table is not None:
                    other = text(self.summary.get("source")) != table.source
                    self._missed |= other or table.sequence < self._expected
                self._expected = whole(self.summary.get("seq"))
            self._stir()
            await trio.sleep(_ASK / 10)

    def _refused(self, refused: Refused) -> None:
        if refused.code != "unknown":
            self.trouble = str(refused)
            return
        # Its last events were published before, and are here by the next answer.
        self.gone, self._unknown = self._unknown, True
        self._ask.set()
        if self.table is None or not self.table.end:
            self.trouble = str(refused)

    async def _keep_whole(self) -> None:
        """Fetch the build at first, and whenever something was missed; never returns."""
        while True:
            table = self.table
            if table is None or self._is_behind(table):
                began, share = trio.current_time(), _SHARE
                # What comes from here on is younger than the answer, or in it.
                self._missed = False
                try:
                    await self._fetch(began if self.fetched else float("-inf"))
                except Refused as refused:
                    self._missed, share = True, 0.0
                    self._refused(refused)
                took = trio.current_time() - began
                self._stir()
                await trio.sleep(max(_CATCH_UP, share * took))
            else:
                self._wanted = trio.Event()
                with trio.move_on_after(_ASK):
                    await self._wanted.wait()

    async def _fetch(self, since: float) -> None:
        found: Whole = await self._wholes.get(self.build, since)
        structure = found.structure
        job = partial(table_of, structure.ids, structure.index, found.answer, found.rows)
        self.table = await self._desk.executor.run(OWNER, job, long=True)
        self.summary, self.key, self.trouble = found.answer, structure.key, self._desk.trouble()
        self._expected = self.table.sequence
        self.fetched += 1
