"""Replies that come twice."""

from scheduler.dispatch.duplicates import DuplicateFilter, Way

REPLY = ("b1", "a", "vpc.create.aws.error", b"{}")


def test_what_was_dealt_with_is_an_echo_once_on_the_other_way() -> None:
    """A third one is somebody's answer again, and so is one of other words or for another component."""
    echoes = DuplicateFilter()
    echoes.expect(Way.CAPTURED, *REPLY)
    assert echoes
    assert not echoes.take(Way.DIRECT, *REPLY)
    assert not echoes.take(Way.CAPTURED, "b1", "b", *REPLY[2:])
    assert not echoes.take(Way.CAPTURED, *REPLY[:3], b"{ }")
    assert echoes.take(Way.CAPTURED, *REPLY)
    assert not echoes.take(Way.CAPTURED, *REPLY)
    assert not echoes


def test_the_same_words_twice_have_two_echoes() -> None:
    """Two attempts may fail alike."""
    echoes = DuplicateFilter()
    echoes.expect(Way.CAPTURED, *REPLY)
    echoes.expect(Way.CAPTURED, *REPLY)
    assert [echoes.take(Way.CAPTURED, *REPLY) for _ in range(3)] == [True, True, False]


def test_what_never_comes_is_forgotten() -> None:
    """Only so many are waited for, the oldest going first."""
    echoes = DuplicateFilter()
    echoes.expect(Way.CAPTURED, *REPLY)
    for number in range(10_000):
        echoes.expect(Way.CAPTURED, "b2", str(number), *REPLY[2:])
    assert not echoes.take(Way.CAPTURED, *REPLY)
    assert echoes.take(Way.CAPTURED, "b2", "0", *REPLY[2:])
