"""Which subjects a question, an order or a build may be answered on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.bus.subjects import encode_subject, matches
from scheduler.definition.subjects import may_be_answered

VERBS = ("create", "update", "delete", "get", "find")
FORBIDDEN = (
    *(f"*.{verb}.*{suffix}" for verb in VERBS for suffix in ("", ".done", ".error")),
    *(f"{first}.>" for first in ("build", "service", "environment", "scheduler")),
    *(f"${first}.>" for first in ("JS", "KV", "O", "SRV", "SYS", "MQTT")),
)
tokens = st.sampled_from(
    [*VERBS, "aws", "vpc", "done", "error", "build", "scheduler", "$JS", "$O", "_INBOX", "x"]
)


@pytest.mark.parametrize(
    "reply",
    [
        "_INBOX.Zx81.7",
        "_INBOX.create.x.1",
        "_R_.nCBSar.hkOTN7",
        "_GR_.aBcDeF.gHiJkLmN._INBOX.Zx81.7",
        "inbox",
        "answers.create",
        "create.aws",
        "Build.create",
        "answers.$JS",
        "a.b.create.aws",
    ],
)
def test_an_inbox_may_be_answered(reply: str) -> None:
    """Also one across accounts (`_R_`) or gateways, and one of any other name."""
    assert may_be_answered(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "vpc.create.aws",
        "_INBOX.create.aws",
        "vpc.find.aws.done",
        "vpc.get.aws.error",
        "build",
        "build.create",
        "service.patch.done",
        "environment.set",
        "scheduler.log.b1",
        "scheduler.reply.owner.aws.token",
        "$JS.API.STREAM.DELETE.SCHEDULER_LOG",
        "$JS.ACK.S.C.1.2.3.4.5",
        "$KV.SCHEDULER.lease",
        "$O.SCHEDULER_OBJECTS.C.x",
        "$SRV.PING",
        "$SYS.REQ.USER.INFO",
        "_GR_.aBcDeF.gHiJkLmN.build.create.done",
        "_GR_.aBcDeF.gHiJkLmN._GR_.aBcDeF.gHiJkLmN.$JS.API.INFO",
        "_GR_.aBcDeF.gHiJkLmN",
        "_GR_",
        "a.*",
        "a.>",
        ">",
        ".a",
        "a.",
        "a..b",
        "a b",
        "a\r\nPUB build.create 0",
        "a\u2028b",
        "a" * 513,
    ],
)
def test_what_may_be_something_else_is_not_answered(reply: str) -> None:
    """A subject of the system, of a connector or of the server; or none to publish on at all."""
    assert not may_be_answered(reply)


@given(st.lists(tokens, min_size=1, max_size=5), st.integers(0, 2))
def test_an_answer_never_matches_a_subject_that_means_something(reply: list[str], gateways: int) -> None:
    """However it is put together, and whatever gateways it came over."""
    subject = ".".join(reply)
    if may_be_answered("_GR_.aBcDeF.gHiJkLmN." * gateways + subject):
        assert not [pattern for pattern in FORBIDDEN if matches(pattern, subject)]
        assert not subject.endswith((".done", ".error"))


@given(st.text(max_size=20) | st.text(alphabet=".*> \tab$\x00\xa0\u2028", max_size=8))
def test_an_answer_goes_to_what_can_be_published_on(reply: str) -> None:
    """Whatever the sender of a message has written there."""
    if may_be_answered(reply):
        encode_subject(reply)
