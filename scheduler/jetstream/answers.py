"""Answers of JetStream: their forms, and the translation of the server's errors."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec
from attrs import field, frozen

from scheduler.errors import (
    BusError,
    JetStreamError,
    JetStreamUnavailable,
    StreamNotFound,
    TooLargeForStream,
    WrongLastSequence,
)
from scheduler.jetstream.codes import Meaning, meaning

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

_Form = TypeVar("_Form", bound=msgspec.Struct)

_ERRORS: Final[Mapping[Meaning, type[JetStreamError]]] = {
    Meaning.NO_STREAM: StreamNotFound,
    Meaning.OTHER_SEQUENCE: WrongLastSequence,
    Meaning.TOO_LARGE: TooLargeForStream,
}

_UNAVAILABLE = 503


@frozen
class Ack:
    """Acknowledgement by the server that it has stored a message."""

    stream: str
    sequence: int
    domain: str = ""
    """JetStream domain of the stream; empty where it has none."""
    duplicate: bool = False
    """Whether it had stored one with the same ``Nats-Msg-Id`` shortly before: ``sequence`` is of that one."""


@frozen
class Stored:
    """A message in a stream."""

    subject: str
    sequence: int
    time: int
    """Time of storage by the server's clock, in nanoseconds since 1970."""
    data: bytes = field(repr=False)
    headers: Mapping[str, str] = NO_HEADERS


@frozen
class StreamInfo:
    """Configuration of a stream, as the server has it, and its state."""

    config: Mapping[str, Any]
    messages: int
    bytes: int
    first_sequence: int
    """Sequence of the oldest message; ``last_sequence + 1`` if all were removed, 0 if there never was one."""
    last_sequence: int
    """Last sequence given out, whether or not that message is still there."""


class _State(msgspec.Struct):
    messages: int
    bytes: int
    first_seq: int
    last_seq: int


class _InfoAnswer(msgspec.Struct):
    config: dict[str, Any]
    state: _State


class _Message(msgspec.Struct):
    subject: str
    seq: int
    time: str
    data: bytes = b""
    """Payload; in base64, like ``hdrs``, which msgspec decodes."""
    hdrs: bytes = b""


class _MessageAnswer(msgspec.Struct):
    message: _Message


class _PublishAnswer(msgspec.Struct):
    stream: str
    seq: int
    domain: str = ""
    duplicate: bool = False
    error: Any = None


_decode_ack = msgspec.json.Decoder(_PublishAnswer).decode


def read_answer(subject: str, data: bytes) -> dict[str, Any]:
    """Read the answer to a request on ``subject``.

    Raises:
        JetStreamUnavailable: the answer is: not now.
        JetStreamError: the answer is a refusal, or makes no sense.
    """
    try:
        answer = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise JetStreamError(f"{subject}: the answer is not JetStream's: {data[:80]!r}") from None
    error = answer.get("error")
    if error is not None:
        raise _error(subject, error)
    return answer


def read_ack(subject: str, data: bytes) -> Ack:
    """Read the answer to a message published on ``subject``.

    Raises:
        JetStreamUnavailable, JetStreamError: as for `read_answer`; or it is not an answer of a stream:
            another program answers on that subject.
    """
    try:
        ack = _decode_ack(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        ack = None
    if ack is None or ack.error is not None:
        # Its decoder has the words for what is wrong.
        ack = _understand(subject, read_answer(subject, data), _PublishAnswer)
    return Ack(ack.stream, ack.seq, ack.domain, ack.duplicate)


def read_info(subject: str, answer: Mapping[str, Any]) -> StreamInfo:
    """Read the answer with a stream's configuration and state.

    Raises:
        JetStreamError: it makes no sense.
    """
    info = _understand(subject, answer, _InfoAnswer)
    state = info.state
    return StreamInfo(info.config, state.messages, state.bytes, state.first_seq, state.last_seq)


def read_message(subject: str, answer: Mapping[str, Any]) -> Stored:
    """Read the answer with a message of a stream. A large one takes long.

    Raises:
        JetStreamError: it makes no sense.
    """
    message = _understand(subject, answer, _MessageAnswer).message
    return Stored(
        message.subject, message.seq, parse_time(message.time), message.data, _parse_headers(message.hdrs)
    )


def _understand(subject: str, answer: Mapping[str, Any], form: type[_Form]) -> _Form:
    try:
        return msgspec.convert(answer, form)
    except msgspec.ValidationError as error:
        raise JetStreamError(f"{subject}: the answer is not JetStream's: {error}") from None


def _error(subject: str, error: Mapping[str, Any]) -> BusError:
    code, err_code = error.get("code", 0), error.get("err_code", 0)
    description = str(error.get("description", "no reason given"))
    text = f"{subject}: {description} ({err_code})"
    means = meaning(code, err_code, description)
    if means in {Meaning.LATER, Meaning.AGAIN} or (means is Meaning.FULL and code == _UNAVAILABLE):
        return JetStreamUnavailable(text)
    return _ERRORS.get(means, JetStreamError)(text, code=code, err_code=err_code)


def parse_time(text: str) -> int:
    """Read a time in the server's form (RFC 3339, UTC, up to nine decimals) as nanoseconds since 1970."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0"))


def format_time(nanoseconds: int) -> str:
    """Write a time in the server's form; the reverse of ``parse_time``."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def _parse_headers(block: bytes) -> Mapping[str, str]:
    lines = block.decode(errors="replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {key: value.strip() for key, _, value in pairs} or NO_HEADERS
