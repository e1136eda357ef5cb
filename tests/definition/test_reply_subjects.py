"""The subjects that replies to single requests come in on, and what of them can be told from others."""

import re

from hypothesis import given
from hypothesis import strategies as st

from scheduler.definition.reply_subjects import (
    EVERY,
    Address,
    Tokens,
    draw_key,
    interest,
    is_secret,
    old_token,
    owner_of,
    parse,
)
from scheduler.definition.subjects import overlap

TOKEN = re.compile(r"[A-Za-z0-9_-]+")


@given(st.text())
def test_an_owner_is_one_short_token(instance: str) -> None:
    """Whatever the process is called; and the same for the same name."""
    owner = owner_of(instance)
    assert len(owner) == 8
    assert TOKEN.fullmatch(owner)
    assert owner == owner_of(instance)


def test_no_two_of_many_processes_share_an_owner() -> None:
    """Names that differ in one character are told apart."""
    assert len({owner_of(f"scheduler-{number:08x}") for number in range(20_000)}) == 20_000


@given(st.text(), st.text())
def test_a_token_is_that_of_one_attempt_under_one_key(attempt: str, other: str) -> None:
    """The same again for the next process; another for another attempt, or another build's key."""
    key = draw_key()
    token = Tokens(key).of(attempt)
    assert re.fullmatch("[0-9a-f]{32}", token)
    assert Tokens(key).of(attempt) == token
    assert (Tokens(key).of(other) == token) is (other == attempt)
    assert Tokens(draw_key()).of(attempt) != token
    assert key not in token


def test_a_key_is_drawn_anew_each_time() -> None:
    """It has 128 bits, and differs from that of an earlier version."""
    keys = {draw_key() for _ in range(1_000)}
    assert len(keys) == 1_000
    assert all(map(is_secret, keys))
    assert not any(map(is_secret, ("", "0123456789abcdef", "k3q8d0zv7m1x")))


def test_what_a_reply_subject_says() -> None:
    """Owner, provider and token; of an old one the token alone; nothing of anything else."""
    own = interest("own")
    assert overlap(own, EVERY)
    assert parse("scheduler.reply.own.aws.tok") == Address("own", "aws", "tok")
    assert parse(f"scheduler.reply.{old_token('k', 10, 0)}") == Address("", "", "k-a")
    assert old_token("k", 10, 2) == "k-a-2"
    assert parse("scheduler.reply.a.b") is None
    assert parse("scheduler.reply.a.b.c.d") is None


def test_patterns_that_take_the_same_subject_overlap() -> None:
    """Token by token."""
    assert overlap("*.create.*.done", "vpc.create.aws.done")
    assert overlap("*.create.aws.done", "vpc.create.*.done")
    assert not overlap("*.create.aws.done", "*.create.gcp.done")
    assert not overlap("scheduler.reply.*", "scheduler.reply.*.*.*")
