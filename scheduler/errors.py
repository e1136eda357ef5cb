"""Everything this package raises on purpose.

::

    SchedulerError
    ├── InvalidSettings          a flag or variable is wrong; the process exits with code 2
    ├── InvalidRule              a limit, a retry or a failure policy cannot be read
    ├── InvalidDrawing           a graph cannot be made a picture
    ├── InvalidJSON              bytes are not JSON that we accept
    │   └── OverLimit            ... although they are JSON: it is too deep, or a number too long
    ├── InvalidBuild             a build is refused; carries every problem found
    ├── TemplateError            a reference or expression cannot be used
    │   ├── InvalidTemplate      ... as written; carries every problem of the component
    │   └── Unresolved           ... because it refers to something absent or null
    ├── BusError                 the message broker or our use of it
    │   ├── BusClosed            used after it was closed
    │   ├── BusFull              the bounded outgoing queue has no room
    │   ├── InvalidSubject       a subject or header that must not reach the broker
    │   ├── MessageTooLarge      over the server's max_payload
    │   ├── NoResponders         nobody subscribes to a request's subject (503)
    │   ├── NotPermitted         the broker's permissions forbid a request or a subscription
    │   ├── UnsupportedServer    the broker is too old or refuses our credentials
    │   ├── JetStreamUnavailable JetStream did not answer, or cannot work right now: to be asked again
    │   │   ├── StreamUnheard    ... nobody listens on the subject: no stream has it
    │   │   └── Unanswered       ... somebody listens, and did not answer in time
    │   └── JetStreamError       JetStream answered with an error
    │       ├── StreamNotFound   ... there is no such stream
    │       ├── TooLargeForStream  ... no stream, or not this one, takes a message that large
    │       └── WrongLastSequence  ... somebody else wrote to the subject (compare-and-set)
    ├── Refused                  what an operator asks for makes no sense, or cannot be done now
    ├── StoreError               the store answered with an error
    │   ├── StoreUnavailable     the store did not answer in time
    │   ├── BuildLost            the store no longer knows the build
    │   ├── AlreadyLogged        the build's id has a log already
    │   ├── Fenced               another process writes the build's log: it is no longer ours
    │   ├── LogRemoved           the build's log was removed by hand: nothing more can be persisted
    │   ├── LogMissing           the log of all builds is gone
    │   └── UnreadableLog        a build's log cannot be understood
    ├── BrokerError              the embedded broker could not be started
    ├── Hung                     work on one build held the loop up for too long, and was interrupted
    ├── SteeringError            a running scheduler refuses what it was asked, or nobody answers
    └── PlanError                a bug in this package, never a user's mistake
        ├── IllegalTransition    a component cannot go from that state to this one
        └── Stuck                nothing is in flight, nothing can start, and it is not finished

A component that fails is not an exception: it is data, in the component's state.
This module imports nothing of the package.
"""

from collections.abc import Sequence
from typing import NamedTuple


class SchedulerError(Exception):
    """The root: catch this to catch everything the package raises on purpose."""


class InvalidSettings(SchedulerError):
    """A setting has a value that cannot be used; the message names the setting and the value."""


class InvalidRule(SchedulerError):
    """A rule cannot be read; the message says what it is not, to be put behind what was written."""


class InvalidDrawing(SchedulerError):
    """A graph that is too large for a picture; the message says what is possible."""


class InvalidJSON(SchedulerError):
    """Bytes that are not strict JSON within the limits; the message says what and where."""

    def __init__(self, message: str, *, what: str = "", at: int | None = None) -> None:
        self.what = what or message
        """The message without the place."""
        self.at = at
        """The byte where they are not, if that is known."""
        super().__init__(message)


class OverLimit(InvalidJSON):
    """JSON that nests too deep, or has a number that is too long."""


class Problem(NamedTuple):
    """One thing wrong with a build: where, and what, with the cure where there is one."""

    place: str
    """Such as ``changes[3]._provider`` or ``edges[0].source``; empty for the build as a whole."""
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class InvalidBuild(SchedulerError):
    """A build that is refused at intake, with *every* problem that was found."""

    def __init__(self, code: str, problems: Sequence[Problem]) -> None:
        self.code = code
        """For programs: ``invalid``, ``limit``, ``running``, ``busy``, ``shutting_down``, ``store``."""
        self.problems = tuple(problems)
        first = str(self.problems[0]) if self.problems else code
        more = len(self.problems) - 1
        super().__init__(f"{first} (and {more} more)" if more > 0 else first)


class TemplateError(SchedulerError):
    """A reference or an expression that is not allowed, not readable, or too large."""


class InvalidTemplate(TemplateError):
    """A component that is refused for what its strings say, with *every* problem that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - 1
        super().__init__(f"{self.problems[0]} (and {more} more)" if more else str(self.problems[0]))


class Unresolved(TemplateError):
    """A reference to something that is absent or null."""


class BusError(SchedulerError):
    """Something about the message broker, or a message that must not be given to it."""


class BusClosed(BusError):
    """The bus was used after it was closed."""


class BusFull(BusError):
    """The bounded queue of outgoing messages has no room."""


class InvalidSubject(BusError):
    """A subject or a header that would break the protocol or forge a message."""


class MessageTooLarge(BusError):
    """A message over the server's limit, or over what its streams take."""

    def __init__(self, what: str, size: int, limit: int, whose: str = "the server's max_payload") -> None:
        self.size = size
        self.limit = limit
        super().__init__(f"{what} takes {size} bytes, over {whose} of {limit} bytes")


class NoResponders(BusError):
    """Nobody subscribes to the subject of a request (the server's status 503)."""


class NotPermitted(BusError):
    """The broker's permissions do not let this user publish on a subject, or subscribe to it."""

    def __init__(self, verb: str, subject: str) -> None:
        self.refusal = f"the broker refused to {verb} {subject}"
        """Without the cure, for those who can say what it means."""
        super().__init__(
            f"{self.refusal}: allow it in the broker's permissions"
            " (`scheduler permissions` prints what each user needs)"
        )


class UnsupportedServer(BusError):
    """The server cannot be used: too old, or it refuses our credentials."""


class JetStreamUnavailable(BusError):
    """JetStream did not answer in time, or cannot work right now: no leader, no quorum, no room.

    What was to be published may or may not have been stored.
    """


class ForeignAnswer(JetStreamUnavailable):
    """Another JetStream than ours acknowledged what was published: ours may have stored it, or not."""


class StreamUnheard(JetStreamUnavailable):
    """Nobody listens on a subject that a stream should have: it is gone, or JetStream is not ready yet."""


class Unanswered(JetStreamUnavailable):
    """Somebody listens, and has not answered in time."""


class JetStreamError(BusError):
    """JetStream answered a request or a publish with an error."""

    def __init__(self, message: str, *, code: int = 0, err_code: int = 0) -> None:
        self.code = code
        """As in HTTP: 400, 404, 503."""
        self.err_code = err_code
        """The server's own number, such as 10071."""
        super().__init__(message)


class StreamNotFound(JetStreamError):
    """There is no stream of that name."""


class TooLargeForStream(JetStreamError):
    """A message is larger than the server's streams take, or this one does: it was not stored."""


class WrongLastSequence(JetStreamError):
    """A publish expected another last message on its subject: it was not stored."""


class Refused(SchedulerError):
    """An operator asks for something that makes no sense, or cannot be done now; the message says why."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        """For programs: ``invalid``, ``unknown``, ``conflict``, ``unavailable``, ``internal``."""
        super().__init__(message)


class StoreError(SchedulerError):
    """The store answered, and the answer is an error or makes no sense."""


class StoreUnavailable(StoreError):
    """The store did not answer within its deadline."""


class BuildLost(StoreError):
    """The store does not know the build (any more)."""


class AlreadyLogged(StoreError):
    """A build is to begin under an id that has a log already."""

    def __init__(self, message: str, *, digest: str = "", status: str = "") -> None:
        self.digest = digest
        """Of the content that stands there."""
        self.status = status
        """How far it is: ``open``, ``finished`` or ``reported``."""
        super().__init__(message)


class Fenced(StoreError):
    """Another process has written to the build's log: nothing more may be written or sent for it here."""


class LogRemoved(StoreError):
    """A build's log is gone, and no scheduler has removed it: what this process holds is all there is."""


class LogMissing(StoreError):
    """The log of all builds is gone, although there was one: nothing can be accepted or resumed."""


class UnreadableLog(StoreError):
    """A build's log, or a record of it, cannot be understood by this version."""


class Hung(SchedulerError):
    """Work on one build held the loop up for too long, and was interrupted there; it names the place."""


class BrokerError(SchedulerError):
    """The embedded broker could not be started or did not become ready."""


class SteeringError(SchedulerError):
    """A scheduler refuses what it was asked about a build, or none answers; the message is for a person."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        """The scheduler's (``invalid``, ``unknown``, ``conflict``, ``unavailable``, ``internal``), or ours:
        ``nobody`` answers, or what does is ``unreadable``."""
        super().__init__(message)


class PlanError(SchedulerError):
    """A bug in this package: the plan was asked for something impossible."""


class IllegalTransition(PlanError):
    """A component cannot go from its state to the one asked for; nothing was changed."""


class Stuck(PlanError):
    """Nothing is in flight, nothing can start, and the build is not finished."""
