"""Errors that this package raises on purpose.

::

    SchedulerError
    ├── InvalidSettings          a flag or variable is wrong; the process exits with code 2
    ├── InvalidRule              a limit, a retry or a failure policy cannot be read
    ├── InvalidDrawing           a graph cannot be made a picture
    ├── InvalidJSON              bytes are not acceptable JSON
    │   └── OverLimit            ... although they are JSON: it is too deep, or a number too long
    ├── InvalidYAML              a file is no YAML, or says what JSON cannot say
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
    │   │   └── Unanswered       ... a listener is there, and did not answer in time
    │   └── JetStreamError       JetStream answered with an error
    │       ├── StreamNotFound   ... there is no such stream
    │       ├── TooLargeForStream  ... no stream, or not this one, takes a message that large
    │       └── WrongLastSequence  ... another writer was faster (compare-and-set)
    ├── Refused                  a question or command makes no sense, or is impossible now
    ├── StoreError               the store answered with an error
    │   ├── StoreUnavailable     the store did not answer in time
    │   ├── BuildLost            the store no longer knows the build
    │   ├── AlreadyLogged        the build's id has a log already
    │   ├── Fenced               another process writes the build's log: it is no longer ours
    │   ├── LogRemoved           the build's log was removed by hand: nothing more can be persisted
    │   ├── LogMissing           the log of all builds is gone
    │   └── UnreadableLog        a build's log cannot be read
    │       └── BeyondThisVersion  ... because a later version may have written it
    ├── NotPosted                a notification got no answer
    ├── RecordError              a connector's record of what it did cannot be used
    ├── BrokerError              the embedded broker could not be started
    ├── PortUnusable             the port for metrics and health cannot be listened on
    ├── Hung                     work on one build blocked the loop for too long, and was interrupted
    ├── SteeringError            a running scheduler refuses a question or command, or none answers
    └── PlanError                a bug in this package, never a user's mistake
        ├── IllegalTransition    a component cannot go from that state to this one
        └── Stuck                nothing is in flight, nothing can start, and it is not finished

A component that fails is not an exception: it is data, in the component's state. This module imports nothing
of the package.
"""

from collections.abc import Sequence
from typing import NamedTuple


class SchedulerError(Exception):
    """Root of all errors: catch this to catch everything that the package raises on purpose."""


class InvalidSettings(SchedulerError):
    """A setting has an unusable value; the message names the setting and the value."""


class InvalidRule(SchedulerError):
    """A rule cannot be read; the message says why, to be put behind the text of the rule."""


class InvalidDrawing(SchedulerError):
    """A graph is too large for a picture; the message says what is possible."""


class InvalidJSON(SchedulerError):
    """Bytes are not strict JSON within the limits; the message says why and where."""

    def __init__(self, message: str, *, what: str = "", at: int | None = None) -> None:
        self.what = what or message
        """Message without the place."""
        self.at = at
        """Byte of the mistake, if that is known."""
        super().__init__(message)


class OverLimit(InvalidJSON):
    """JSON nests too deep, or has a number that is too long."""


class InvalidYAML(SchedulerError):
    """A text is no YAML, or says something that JSON cannot say; the message has the cure, not the place."""

    def __init__(self, message: str, line: int, column: int = 0) -> None:
        self.line = line
        """Line of the mistake, from 1."""
        self.column = column
        """Its column, from 1; 0 if that says no more."""
        super().__init__(message)


class Problem(NamedTuple):
    """One mistake in a build: its place and a message, with the cure where there is one."""

    place: str
    """Place such as ``changes[3]._provider`` or ``edges[0].source``; empty for the build as a whole."""
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class InvalidBuild(SchedulerError):
    """A build is refused at intake, with *every* problem that was found."""

    def __init__(self, code: str, problems: Sequence[Problem]) -> None:
        self.code = code
        """Code for programs: ``invalid``, ``limit``, ``running``, ``busy``, ``shutting_down``, ``store``."""
        self.problems = tuple(problems)
        first = str(self.problems[0]) if self.problems else code
        more = len(self.problems) - 1
        super().__init__(f"{first} (and {more} more)" if more > 0 else first)


class InvalidSelection(SchedulerError):
    """A part of a build was asked for that cannot be had, with every reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


class TemplateError(SchedulerError):
    """A reference or an expression is not allowed, not readable, or too large."""


class InvalidTemplate(TemplateError):
    """A component is refused for its strings, with *every* problem that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - 1
        super().__init__(f"{self.problems[0]} (and {more} more)" if more else str(self.problems[0]))


class Unresolved(TemplateError):
    """A reference leads to something absent or null."""


class BusError(SchedulerError):
    """The message broker fails, or a message must not be given to it."""


class BusClosed(BusError):
    """The bus was used after it was closed."""


class BusFull(BusError):
    """The bounded queue of outgoing messages has no room."""


class InvalidSubject(BusError):
    """A subject or a header would break the protocol, or forge a message."""


class MessageTooLarge(BusError):
    """A message is over the server's limit, or over that of its streams."""

    def __init__(self, what: str, size: int, limit: int, whose: str = "the server's max_payload") -> None:
        self.size = size
        self.limit = limit
        super().__init__(f"{what} takes {size} bytes, over {whose} of {limit} bytes")


class NoResponders(BusError):
    """The subject of a request has no subscriber (the server's status 503)."""


class NotPermitted(BusError):
    """The broker's permissions forbid this user to publish on a subject, or to subscribe to it."""

    def __init__(self, verb: str, subject: str) -> None:
        self.refusal = f"the broker refused to {verb} {subject}"
        """Message without the cure, for callers that can say what it means."""
        super().__init__(
            f"{self.refusal}: allow it in the broker's permissions"
            " (`scheduler permissions` prints what each user needs)"
        )


class UnsupportedServer(BusError):
    """The server cannot be used: it is too old, or refuses our credentials."""


class JetStreamUnavailable(BusError):
    """JetStream did not answer in time, or cannot work right now: no leader, no quorum, no room.

    A message that was to be published may or may not have been stored.
    """


class ForeignAnswer(JetStreamUnavailable):
    """Another JetStream acknowledged a message: ours may have stored it, or not."""


class StreamUnheard(JetStreamUnavailable):
    """No stream listens on a subject that one should have: it is gone, or JetStream is not ready yet."""


class Unanswered(JetStreamUnavailable):
    """A listener is there, and has not answered in time."""


class JetStreamError(BusError):
    """JetStream answered a request or a publish with an error."""

    def __init__(self, message: str, *, code: int = 0, err_code: int = 0) -> None:
        self.code = code
        """Status as in HTTP: 400, 404, 503."""
        self.err_code = err_code
        """The server's own number, such as 10071."""
        super().__init__(message)


class StreamNotFound(JetStreamError):
    """There is no stream of that name."""


class TooLargeForStream(JetStreamError):
    """A message is too large for the server's streams, or for this one: it was not stored."""


class WrongLastSequence(JetStreamError):
    """A publish expected another last message on its subject: it was not stored."""


class Refused(SchedulerError):
    """A question or command of an operator makes no sense, or is impossible now; the message says why."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        """Code for programs: ``invalid``, ``unknown``, ``conflict``, ``unavailable``, ``internal``,
        ``expired``."""
        super().__init__(message)


class CarriedOut(SchedulerError):
    """An order of an operator has come again that was carried out before."""

    def __init__(self, time: float) -> None:
        self.time = time
        """Time at which it was carried out, in seconds since 1970."""
        super().__init__("it was carried out before")


class StoreError(SchedulerError):
    """The store answered with an error, or with nonsense."""


class StoreUnavailable(StoreError):
    """The store did not answer within its deadline."""


class BuildLost(StoreError):
    """The store does not know the build, or no longer."""


class AlreadyLogged(StoreError):
    """A build is to begin under an id that has a log already."""

    def __init__(self, message: str, *, digest: str = "", status: str = "", owner: str = "") -> None:
        self.digest = digest
        """Digest of the build in that log."""
        self.owner = owner
        """Process that wrote the last record; empty where it does not say."""
        self.status = status
        """Status of that log: ``open``, ``finished`` or ``reported``."""
        super().__init__(message)


class Fenced(StoreError):
    """Another process has written to the build's log: nothing more may be written or sent for it here."""


class LogRemoved(StoreError):
    """A build's log is gone, and no scheduler has removed it: only this process still has its content."""


class LogMissing(StoreError):
    """The log of all builds is gone, although there was one: nothing can be accepted or resumed."""


class UnreadableLog(StoreError):
    """A build's log, or a record of it, cannot be read by this version."""


class BeyondThisVersion(UnreadableLog):
    """A build's log has an event, a member or a value that this version does not know."""


class RecordError(SchedulerError):
    """A connector's record of what it did cannot be used; the message names it, and the reason."""


class Hung(SchedulerError):
    """Work on one build blocked the loop for too long, and was interrupted; the message names the place."""


class NotPosted(SchedulerError):
    """A notification got no answer; the message says why, without a URL."""


class BrokerError(SchedulerError):
    """The embedded broker could not be started, or did not become ready."""


class PortUnusable(SchedulerError):
    """The port for metrics and health cannot be listened on; the message names the flag and the address."""


class SteeringError(SchedulerError):
    """A scheduler refuses a question or command about a build, or none answers; the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        """The scheduler's code (``invalid``, ``unknown``, ``conflict``, ``unavailable``, ``internal``,
        ``expired``); or the client's: ``nobody`` is there, those who are keep ``silent``, this is
        ``forbidden``, or the answer is ``unreadable``."""
        super().__init__(message)


class PlanError(SchedulerError):
    """A bug in this package: the plan was asked for something impossible."""


class IllegalTransition(PlanError):
    """A component cannot go from its state to the requested one; nothing was changed."""


class Stuck(PlanError):
    """Nothing is in flight, nothing can start, and the build is not finished."""
