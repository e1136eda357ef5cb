"""Answers the senders of builds: accepted, or rejected and why.

WIRE: "Intake". The answer to a build that was accepted is sent when it is persisted, not before.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from scheduler.bus import Bus, Message
from scheduler.definition.codec import read_id
from scheduler.definition.model import BUILD_ACTIONS
from scheduler.definition.strictjson import Raw, encode, split_object
from scheduler.definition.subjects import UNANSWERABLE, may_be_answered
from scheduler.errors import BusError, InvalidBuild, MessageTooLarge, Problem
from scheduler.runtime.log_limits import RateLimitedLog

SUBJECTS: Final = BUILD_ACTIONS
"""Subjects on which builds come in."""
QUEUE_GROUP: Final = "scheduler"

_STREAM_ACK: Final = "$JS.ACK."
_MOST_DETAIL_BYTES = 256 * 1024
_SMALL = 32 * 1024
"""Largest build that is taken apart on the spot, in bytes."""
_MOST_KEPT_BYTES = 1_000
"""Largest field that is kept where a rejected build is too large to be published whole, in bytes."""


class Passed(Message):
    """A build that another instance has passed on to this one; the answer goes to that instance."""

    __slots__ = ()


class Receipts:
    """Answers the senders of builds.

    Args:
        bus: connection for answers.
        holds: returns whether a build of this id is held here.
        load: returns the headers of answers to other instances, which tell the load here.
        counts: counts the answers, as ``accepted`` and ``refused``.
    """

    def __init__(
        self,
        bus: Bus,
        holds: Callable[[str], bool],
        load: Callable[[], Mapping[str, str]] = dict,
        counts: Counter[str] | None = None,
    ) -> None:
        self._counts: Counter[str] = Counter() if counts is None else counts
        self._bus = bus
        self._holds = holds
        self._load = load
        self._log = RateLimitedLog()

    def may_be_taken(self, message: Message) -> bool:
        """Return whether a message may be taken: not where its reply subject is no inbox.

        A build from a stream has a reply subject of the server, for acknowledgements to JetStream: it counts
        as one without a reply subject.
        """
        if not message.reply or _is_delivered(message) or may_be_answered(message.reply):
            return True
        self._log.warning(UNANSWERABLE, subject=message.subject, reply=message.reply[:500])
        return False

    def accept(self, message: Message, build: str, *, finished: bool = False) -> None:
        """Answer that the build is accepted, or was accepted before and is ``finished``."""
        self._counts["accepted"] += 1
        answer: dict[str, Any] = {"id": build, "status": "accepted"}
        self._answer(message, answer | {"finished": True} if finished else answer)

    def reject(self, message: Message, refusal: InvalidBuild) -> None:
        """Answer that the build is rejected, and why.

        Without a reply subject, a build whose id can be read is published, whole, on ``<intake>.error``; but
        not while one with this id runs here, as the store would take the running one for failed.
        """
        self._counts["refused"] += 1
        build = read_id(message.data)
        problems = refusal.problems
        tell = self._log.info if isinstance(message, Passed) else self._log.warning
        tell(
            "build rejected",
            build=build,
            subject=message.subject,
            code=refusal.code,
            problems=len(problems),
            first=str(problems[0])[:500] if problems else "",
        )
        if self.is_asked(message):
            details = _fitting(problems, self._bus.max_payload // 2)
            error = {"code": refusal.code, "message": str(refusal)[:2_000], "details": details}
            self._answer(message, {"id": build, "status": "rejected", "error": error})
        elif build is not None and refusal.code != "running" and not self._holds(build):
            try:
                _publish_error(self._bus, message, refusal)
            except BusError as error:
                self._log.warning("rejection not published", build=build, error=str(error))

    def is_asked(self, message: Message) -> bool:
        """Return whether the sender awaits an answer; otherwise a refusal is published for everybody."""
        return bool(message.reply) and not _is_delivered(message)

    def relay(self, message: Message, answer: bytes) -> None:
        """Give the sender the answer of the instance that a build was passed on to."""
        if may_be_answered(message.reply):
            try:
                self._bus.publish(message.reply, answer)
            except BusError as error:
                self._log.warning("intake not answered", build=read_id(message.data), error=str(error))

    def _answer(self, message: Message, answer: dict[str, Any]) -> None:
        # Checked again, as a caller may not have asked `may_be_taken`, and this is the last place.
        if not may_be_answered(message.reply):
            return
        headers = self._load() if isinstance(message, Passed) else None
        try:
            try:
                self._bus.publish(message.reply, encode(answer), headers=headers)
            except MessageTooLarge:
                answer.get("error", {}).pop("details", None)
                self._bus.publish(message.reply, encode(answer), headers=headers)
        except BusError as error:
            self._log.warning("intake not answered", build=answer["id"], error=str(error))


def _is_delivered(message: Message) -> bool:
    """Return whether a message comes from a stream, by a consumer."""
    return message.reply.startswith(_STREAM_ACK)


def _fitting(problems: Sequence[Problem], most: int) -> list[str]:
    """Return as many problems as fit into an answer, and the number of the others."""
    size = 0
    fitting: list[str] = []
    for problem in problems:
        text = str(problem)
        size += len(encode(text)) + 1
        if size > min(most, _MOST_DETAIL_BYTES):
            return [*fitting, f"... and {len(problems) - len(fitting)} more"]
        fitting.append(text)
    return fitting


class _Head(msgspec.Struct, omit_defaults=True):
    """Part of a rejected build that is published where the whole is too large."""

    id: Raw = Raw()
    name: Raw = Raw()
    action: Raw = Raw()
    error: Raw = Raw()


_decode_head = msgspec.json.Decoder(_Head).decode


def _publish_error(bus: Bus, message: Message, refusal: InvalidBuild) -> None:
    error = encode(str(refusal)[:4_000])
    subject = f"{message.subject}.error"
    # It stays one JSON object: decoding and encoding it again would take time on the loop.
    head = _decode_head(message.data)
    data = message.data
    if bytes(head.error) and len(data) <= _SMALL:
        members = split_object(data)
        data = encode({key: value for key, value in members.items() if key != "error"})
    try:
        # Of two members of a name the last one counts.
        bus.publish(subject, data.rstrip()[:-1] + b',"error":' + error + b"}")
    except MessageTooLarge:
        kept = {
            key: value
            for key in ("id", "name", "action")
            if 0 < len(bytes(value := getattr(head, key))) <= _MOST_KEPT_BYTES
        }
        omitted = ["components", "changes", "edges"]
        bus.publish(subject, encode({**kept, "error": Raw(error), "omitted": omitted}))
