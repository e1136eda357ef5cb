"""Subjects, headers and the queue of outgoing messages."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.bus.outbox import Barrier, Outbox, Queued
from scheduler.bus.subjects import (
    HeaderForm,
    compose,
    encode_headers,
    encode_pattern,
    encode_subject,
    matches,
)
from scheduler.definition.subjects import attempt_header
from scheduler.errors import InvalidSubject

tokens = st.sampled_from(["a", "b", "vpc", "create"])
subjects = st.lists(tokens, min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "a.b", False),
        ("*", "a", True),
        ("*", "a.b", False),
        (">", "a", True),
        (">", "a.b.c", True),
        ("a.>", "a", False),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("b.>", "a.b.c", False),
        ("*.create.*.done", "vpc.create.aws.done", True),
        ("*.create.*.done", "vpc.create.aws.error", False),
        ("*.create.*.done", "vpc.create.aws.x.done", False),
        ("*.>", "a", False),
        ("*.>", "a.b", True),
        ("a.*.>", "a.b", False),
        ("a.*.>", "a.b.c", True),
    ],
)
def test_matches(pattern: str, subject: str, expected: bool) -> None:
    """A star is exactly one token, a closing angle bracket at least one."""
    assert matches(pattern, subject) is expected


@given(subjects, st.data())
def test_a_subject_matches_what_it_is_generalised_to(subject: list[str], data: st.DataObject) -> None:
    """Stars for tokens, an angle bracket for a tail: it still matches; with one token more it does not."""
    pattern = [data.draw(st.sampled_from([token, "*"])) for token in subject]
    text = ".".join(subject)
    assert matches(".".join(pattern), text)
    assert not matches(".".join(pattern), f"{text}.more")
    cut = data.draw(st.integers(0, len(subject) - 1))
    assert matches(".".join([*pattern[:cut], ">"]), text)
    encode_pattern(".".join([*pattern[:cut], ">"]))


@given(st.text())
def test_no_subject_breaks_the_protocol(text: str) -> None:
    """Whatever is accepted is one word without wildcards and empty tokens, at most 512 bytes long."""
    try:
        encoded = encode_subject(text)
    except InvalidSubject:
        return
    assert encoded.split() == [encoded]
    assert all(encoded.split(b"."))
    assert not set(encoded) & set(b"*>\x00\r\n\t ")
    assert 0 < len(encoded) <= 512


@given(st.dictionaries(st.text(), st.text(), min_size=1))
def test_no_header_breaks_the_protocol(headers: dict[str, str]) -> None:
    """Whatever is accepted has one line for each header."""
    try:
        block = encode_headers(headers)
    except InvalidSubject:
        return
    assert block.count(b"\r\n") == len(headers) + 2
    assert block.endswith(b"\r\n\r\n")
    assert block.isascii()


@given(st.one_of(st.text(), st.lists(st.text(max_size=200), max_size=4).map(".".join)))
def test_a_reply_subject_is_checked_as_any_subject(reply: str) -> None:
    """However often one that begins like it was checked before."""

    def said(encode: Callable[[], bytes]) -> bytes | str:
        try:
            return encode()
        except InvalidSubject as error:
            return str(error)

    expected = said(lambda: encode_subject(reply, "reply subject"))
    if reply:
        composed = said(lambda: compose("s", b"", reply, None, 0)[0])
        assert composed == (b"PUB s %b 0\r\n" % expected if isinstance(expected, bytes) else expected)


@given(st.dictionaries(st.sampled_from(["A", "B", "C"]), st.text(), min_size=1))
def test_the_header_that_cannot_be_sent_is_named(headers: dict[str, str]) -> None:
    wrong = [key for key, value in headers.items() if not (value.isascii() and value.isprintable())]
    if not wrong:
        lines = [f"{key}: {value}\r\n" for key, value in headers.items()]
        assert encode_headers(headers) == f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()
    else:
        with pytest.raises(InvalidSubject, match=f"value of header '{wrong[0]}' is not printable"):
            encode_headers(headers)


@given(st.binary(max_size=50), st.dictionaries(st.sampled_from(["A", "B-c"]), st.text("xyz ", max_size=5)))
def test_sizes_are_right(data: bytes, headers: dict[str, str]) -> None:
    """The sizes in the control line are those of what follows it."""
    head, size = compose("s", data, "r", headers, 10_000)
    line, _, block = head.partition(b"\r\n")
    words = line.split()
    assert words[:3] == [b"HPUB" if headers else b"PUB", b"s", b"r"]
    assert int(words[-1]) == size == len(block) + len(data)
    if headers:
        assert int(words[-2]) == len(block)


def test_the_outbox_keeps_its_books() -> None:
    """Through any mix of putting, taking and withdrawing its counts are right and its order kept."""
    outbox = Outbox(max_messages=10_000, max_bytes=10_000_000)
    queued = [outbox.put("s", b"h", b"%d" % i, 10) for i in range(5000)]
    barrier = outbox.put_barrier()
    queued += [outbox.put("s", b"h", b"%d" % i, 10) for i in range(5000, 6000)]
    for i in range(0, 6000, 2):
        assert queued[i].withdraw()
    for i in range(1, 5000, 4):
        assert queued[i].withdraw()
    expected = [b"%d" % i for i in range(6000) if i % 2 and not (i < 5000 and i % 4 == 1)]
    assert len(outbox) == len(expected)
    assert outbox._bytes == 10 * len(expected)
    got: list[bytes] = []
    position = None
    while (item := outbox.take()) is not None:
        if isinstance(item, Barrier):
            assert item is barrier
            position = len(got)
        else:
            got.append(item.data)
            assert not item.withdraw()
    assert got == expected
    assert position == len([body for body in expected if int(body) < 5000])
    assert (len(outbox), outbox._bytes, outbox._withdrawn) == (0, 0, 0)


def test_thousands_of_messages_that_stay_are_passed_over_in_several_batches() -> None:
    """What may leave behind them leaves a few milliseconds later, and all in their order."""
    outbox = Outbox(max_messages=200_000)
    for number in range(100_000):
        outbox.put("s", b"h", b"%d" % number, 1)
    withdrawn = [outbox.put("x", b"h", b"", 1) for _ in range(5_000)]
    assert all(one.withdraw() for one in withdrawn)
    outbox.put("free", b"h", b"", 1)
    outbox.withhold(lambda subject: subject == "s")
    longest, batches = 0.0, 0
    found: Queued | Barrier | None = None
    while found is None:
        began = time.thread_time()
        assert not outbox.is_empty
        assert outbox.checked()
        found = outbox.take()
        longest, batches = max(longest, time.thread_time() - began), batches + 1
    assert isinstance(found, Queued)
    assert found.subject == "free"
    assert longest < 0.01
    assert batches > 20
    assert outbox.is_empty
    outbox.withhold(None)
    assert outbox.checked()
    assert [item.data for _ in range(3) if isinstance(item := outbox.take(), Queued)] == [b"0", b"1", b"2"]


def test_commands_come_first_and_die_with_their_connection() -> None:
    """Their barriers do not."""
    outbox = Outbox()
    outbox.put("s", b"h", b"", 0)
    outbox.command(b"SUB old 1\r\n")
    kept = outbox.command_barrier()
    asked = Barrier()
    outbox.restart([b"SUB new 2\r\n"], [asked])
    assert [outbox.take_command() for _ in range(4)] == [b"SUB new 2\r\n", asked, kept, None]
    assert len(outbox) == 1


@given(st.lists(st.text(), min_size=2, max_size=2))
def test_a_ready_header_block_is_as_one_that_is_checked(attempts: list[str]) -> None:
    """Whatever an attempt is called, its header value may stand there unchecked."""
    first, second = map(attempt_header, attempts)
    checked = encode_headers({"100%": first, "B": second})
    assert HeaderForm("100%", "B").filled(first, second) == checked
    assert compose("s", b"x", "r.1", HeaderForm("A").filled(first), 10_000) == compose(
        "s", b"x", "r.1", {"A": first}, 10_000
    )


def test_a_form_has_no_key_that_no_header_has() -> None:
    with pytest.raises(InvalidSubject, match="not a token"):
        HeaderForm("A", "B: x\r\nC")
