"""Following a build to its report: events, snapshots, the broker's absence."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

import json
from typing import Any

import pytest
import trio
from support.builds import build, change, prepare
from support.fake_bus import FakeBus
from support.feeds import JSON, T, Told, event

from scheduler.bus import Message
from scheduler.client.follow import open_following, show
from scheduler.client.progress import Progress
from scheduler.client.view import News
from scheduler.commands.following import Submission, run_build
from scheduler.errors import SteeringError

SUBJECT = "scheduler.event.b=3A1=2Fx"
BUILD = "b:1/x"


class Notes:
    """A view that remembers what it was told."""

    def __init__(self) -> None:
        self.news: list[News] = []
        self.notes: list[str] = []
        self.updates = 0

    def start(self) -> None:
        pass

    def update(self, news: Any, now: float) -> None:
        self.updates += 1
        self.news += news

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stop(self) -> None:
        pass

    def summary(self, now: float) -> None:
        pass


class Asked:
    """A scheduler that answers ``get`` about one build, once it is told to."""

    def __init__(self, bus: FakeBus, told: Told) -> None:
        self.bus = bus
        self.told = told
        self.questions: list[JSON] = []
        self.fields: JSON = {}
        self.silent = False
        self.held: list[tuple[str, JSON]] | None = None
        """Answers with components that are kept back, where it is a list."""

    async def open(self) -> None:
        await self.bus.subscribe("scheduler.build.get", self._answer)

    def _answer(self, message: Message) -> None:
        question = json.loads(message.data)
        self.questions.append(question)
        if self.held is not None and question["components"]:
            self.held.append((message.reply, self.told.answer(trio.current_time())))
            return
        if not self.silent:
            answer = self.told.answer(trio.current_time(), components=question["components"], **self.fields)
            publish(self.bus, message.reply, answer)

    @property
    def whole(self) -> int:
        """How often the whole build was asked for, not counting the graph at the end."""
        return sum(one["components"] and not one["graph"] for one in self.questions if "graph" in one)


def publish(bus: FakeBus, subject: str, document: Any) -> None:
    bus.publish(subject, document if isinstance(document, bytes) else json.dumps(document).encode())


@pytest.fixture
def told() -> Told:
    """A build of one component, as its scheduler tells of it."""
    return Told("vpc::a", build=BUILD)


async def follow(bus: FakeBus, script: Any, *, joined: bool = False) -> tuple[Progress, Notes]:
    progress = Progress(BUILD, "build.create", trio.current_time(), total=1)
    progress.behind = joined
    notes = Notes()
    async with open_following(bus, BUILD, "build.create") as following, trio.open_nursery() as nursery:
        nursery.start_soon(script)
        await show(bus, following, progress, notes)
    return progress, notes


async def test_a_build_is_followed_to_its_end(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """Events of the build's own subject and its report make up the progress; ids are encoded in subjects."""

    async def script() -> None:
        publish(fake_bus, SUBJECT, told.message(event("vpc::a", "running", 0)))
        await trio.sleep(5)
        publish(fake_bus, SUBJECT, told.message(event("vpc::a", "completed", 0)))
        await trio.sleep(5)
        changes = [{"_component_id": "vpc::a", "_state": "completed"}]
        publish(fake_bus, "build.create.done", {"id": BUILD, "changes": changes})

    progress, notes = await follow(fake_bus, script)
    assert (progress.done, progress.error) == (1, None)
    assert [item.state for item in notes.news] == ["running", "completed"]
    assert progress.ended == pytest.approx(10)
    assert 36 <= notes.updates <= 44
    assert notes.notes == []


async def test_an_error_report_ends_it_with_the_cause(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """A report on .error gives the first cause, and errors that no event told."""

    async def script() -> None:
        changes = [{"_component_id": "vpc::a", "_state": "errored", "error": "boom"}]
        publish(fake_bus, "build.create.error", {"id": BUILD, "error": "vpc::a: boom", "changes": changes})

    progress, notes = await follow(fake_bus, script)
    assert progress.error == "vpc::a: boom"
    assert [item.error for item in notes.news] == ["boom"]


@pytest.mark.parametrize("answered", [False, True])
async def test_a_report_is_shown_without_the_secrets_that_it_holds(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock, answered: bool
) -> None:
    """It says what a connector said, byte for byte; the scheduler, asked at the end, knows more secrets."""
    asked = Asked(fake_bus, told)
    asked.silent = not answered
    await asked.open()

    async def script() -> None:
        await trio.sleep(3)
        text = "no c4nary-bird, no s3nt-along"
        report = {
            "id": BUILD,
            "error": f"vpc::a: {text}",
            "components": [
                {"_component_id": "credentials::c", "_component": "credentials", "key": "c4nary-bird"}
            ],
            "changes": [{"_component_id": "vpc::a", "_state": "errored", "error": text}, 5],
        }
        publish(fake_bus, "build.create.error", report)
        asked.told.status = "errored"
        asked.told.fields["vpc::a"]["error"] = "no ***, no ***"
        asked.fields = {"error": "vpc::a: no ***, no ***"}

    progress, notes = await follow(fake_bus, script)
    assert progress.error == ("vpc::a: no ***, no ***" if answered else "vpc::a: no ***, no s3nt-along")
    assert [item.error for item in notes.news] == ["no ***, no s3nt-along"]


async def test_a_report_without_its_lists_is_shown_as_it_was_told(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """It does not say what is secret; what the scheduler has told has no secrets in it."""

    async def script() -> None:
        failed = {**event("vpc::a", "errored", 0), "error": "no ***"}
        publish(fake_bus, SUBJECT, told.message(failed))
        await trio.sleep(1)
        report = {
            "id": BUILD,
            "error": "vpc::a: no s3nt-along",
            "omitted": ["components", "changes", "edges"],
        }
        publish(fake_bus, "build.create.error", report)

    progress, _ = await follow(fake_bus, script)
    assert progress.error == "vpc::a: no ***"


async def test_other_builds_are_none_of_ours(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """Reports of other builds, unreadable messages and events about another build change nothing."""

    async def script() -> None:
        for data in (b"", b"{", b"[]", b"null", b"\xff", b"{}", b'{"id": 5}', b'{"id": "other"}'):
            publish(fake_bus, "build.create.done", data)
            publish(fake_bus, "build.create.error", data)
            publish(fake_bus, SUBJECT, data)
        publish(fake_bus, SUBJECT, Told("vpc::z", build="other").message(event("vpc::z", "completed", 0)))
        await trio.sleep(5)
        publish(fake_bus, "build.create.done", {"id": BUILD})
        publish(fake_bus, "build.create.error", {"id": BUILD, "error": "late"})

    progress, notes = await follow(fake_bus, script)
    assert progress.ended == pytest.approx(5)
    assert progress.error is None
    assert notes.news == []


async def test_following_survives_the_broker(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """When the broker goes and comes back it is said, and the report is still taken in."""

    async def script() -> None:
        fake_bus.disconnect()
        await trio.sleep(2)
        fake_bus.reconnect()
        await trio.sleep(2)
        publish(fake_bus, "build.create.done", {"id": BUILD})

    progress, notes = await follow(fake_bus, script)
    assert progress.error is None
    assert [note.split(";")[0] for note in notes.notes] == ["the broker is away", "the broker is back"]


@pytest.mark.parametrize(("state", "error"), [("completed", None), ("errored", "vpc::a: failed")])
async def test_a_report_that_was_missed_is_not_waited_for(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock, state: str, error: str | None
) -> None:
    """After a reconnect, a build that is over by its events ends without its report."""

    async def script() -> None:
        publish(fake_bus, SUBJECT, told.message(event("vpc::a", state, 0)))
        await trio.sleep(1)
        fake_bus.disconnect()
        await trio.sleep(1)
        fake_bus.reconnect()

    progress, notes = await follow(fake_bus, script)
    assert progress.error == error
    assert notes.notes[-1] == "its report was missed; this is what is known of it"
    assert progress.ended == pytest.approx(7, abs=0.5)


async def test_silence_after_a_reconnect_is_said_once(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """Where it cannot be known whether the build has ended meanwhile, the person is told, and decides."""

    async def script() -> None:
        publish(fake_bus, SUBJECT, told.message(event("vpc::a", "running", 0)))
        await trio.sleep(1)
        fake_bus.disconnect()
        await trio.sleep(1)
        fake_bus.reconnect()
        await trio.sleep(600)
        publish(fake_bus, "build.create.done", {"id": BUILD})

    progress, notes = await follow(fake_bus, script)
    assert progress.error is None
    assert sum("no news" in note for note in notes.notes) == 1


async def test_following_leaves_no_subscription(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """When the context is left, nothing is listened to any more."""
    async with open_following(fake_bus, "b", "build.create") as following:
        pass
    publish(fake_bus, "build.create.done", {"id": "b"})
    await trio.sleep(1)
    assert not following.ended.is_set()


# With a scheduler that answers.


async def test_who_joins_late_knows_everything(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """Events that come while the snapshot is asked for are applied after it, each once."""
    told.message(event("vpc::a", "running", 0))
    asked = Asked(fake_bus, told)
    await asked.open()

    async def script() -> None:
        publish(fake_bus, SUBJECT, told.message(event("vpc::a", "errored", 0, error="boom")))
        await trio.sleep(5)
        publish(fake_bus, SUBJECT, told.message(event("vpc::a", "running", 6, attempt=2)))
        publish(fake_bus, SUBJECT, told.message(event("vpc::a", "completed", 7, seconds=1.0, attempt=2)))
        publish(fake_bus, "build.create.done", {"id": BUILD})

    progress, notes = await follow(fake_bus, script, joined=True)
    assert [item.state for item in notes.news] == ["errored", "running", "completed"]
    assert (progress.done, progress.errors) == (1, {})
    assert asked.whole == 1


async def test_what_was_missed_is_asked_for(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """A gap in the numbers leads to one snapshot, and what it tells is news."""
    asked = Asked(fake_bus, told)
    await asked.open()

    async def script() -> None:
        told.message(event("vpc::a", "running", 0), event("vpc::a", "retrying", 1, error="x", retry_in=1.0))
        publish(fake_bus, SUBJECT, told.message({"event": "paused", "time": 2.0}))
        await trio.sleep(10)
        publish(fake_bus, "build.create.done", {"id": BUILD})

    _, notes = await follow(fake_bus, script)
    assert [item.state for item in notes.news] == ["paused", "retrying"]
    assert asked.whole == 1


async def test_a_reconnect_asks_for_everything(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """What was published while the connection was down is made up for, soon after."""
    asked = Asked(fake_bus, told)
    await asked.open()

    async def script() -> None:
        await trio.sleep(3)
        fake_bus.disconnect()
        told.message(event("vpc::a", "running", 4))
        await trio.sleep(3)
        fake_bus.reconnect()
        await trio.sleep(2.5)
        publish(fake_bus, "build.create.done", {"id": BUILD})

    _, notes = await follow(fake_bus, script)
    assert [item.state for item in notes.news] == ["running"]


async def test_the_end_and_the_limits_come_from_asking(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """A scheduler is asked every two seconds; without an answer in time its word is left out."""
    asked = Asked(fake_bus, told)
    asked.fields = {"eta": 30.0, "limits": [{"limit": "*=5", "waiting": 2}]}
    await asked.open()
    seen: list[Any] = []

    class Looking(Notes):
        def update(self, news: Any, now: float) -> None:
            seen.append((progress.limits, progress.left(now) is not None))

    progress = Progress(BUILD, "build.create", trio.current_time(), total=1)
    async with open_following(fake_bus, BUILD, "build.create") as following, trio.open_nursery() as nursery:
        nursery.start_soon(show, fake_bus, following, progress, Looking())
        await trio.sleep(9)
        asked.silent = True
        await trio.sleep(6)
        following.end({}, failed=False)
    assert seen[0] == ((), False)
    assert ((("*=5", 2),), True) in seen
    assert seen[-2] == ((), False)
    assert 4 <= sum(not one["components"] for one in asked.questions) <= 7


async def test_it_is_known_since_when_nobody_answers(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """Neither a broker nor a scheduler; an answer, an event or a refusal ends the silence."""
    asked = Asked(fake_bus, told)
    await asked.open()
    progress = Progress(BUILD, "build.create", trio.current_time(), total=1)

    def lasting() -> tuple[float | None, float | None]:
        """Seconds without a broker, and without a scheduler."""
        now = trio.current_time()
        away, silent = (None if since is None else now - since for since in (progress.away, progress.silent))
        return away, silent

    async with open_following(fake_bus, BUILD, "build.create") as following, trio.open_nursery() as nursery:
        nursery.start_soon(show, fake_bus, following, progress, Notes())
        await trio.sleep(5)
        assert lasting() == (None, None)
        asked.silent = True
        await trio.sleep(10)
        assert 8 <= (lasting()[1] or 0) <= 10
        publish(fake_bus, SUBJECT, told.message(event("vpc::a", "running", 1)))
        await trio.sleep(4)
        assert 2 <= (lasting()[1] or 0) <= 4
        asked.silent = False
        await trio.sleep(5)
        assert lasting() == (None, None)
        fake_bus.disconnect()
        await trio.sleep(10)
        assert 9.5 <= (lasting()[0] or 0) <= 10
        fake_bus.reconnect()
        await trio.sleep(3)
        assert lasting() == (None, None)
        fake_bus.forbidden.add("scheduler.build.get")
        await trio.sleep(10)
        assert lasting() == (None, None)
        following.end({}, failed=False)


async def test_a_build_that_is_over_needs_no_report(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """Where a scheduler says that it is over and no report comes or is kept, that is its end."""
    asked = Asked(fake_bus, told)
    told.status = "errored"
    asked.fields = {"error": "vpc::a: boom", "ended": T + 1}
    await asked.open()

    async def script() -> None:
        pass

    progress, notes = await follow(fake_bus, script, joined=True)
    assert progress.error == "vpc::a: boom"
    assert notes.notes == ["its report was missed; this is what is known of it"]
    assert trio.current_time() < 10


async def test_the_path_is_left_out_where_nobody_tells_it(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """A scheduler that is silent at the end holds the summary up for two seconds at most."""
    asked = Asked(fake_bus, told)
    asked.silent = True
    await asked.open()

    async def script() -> None:
        publish(fake_bus, "build.create.done", {"id": BUILD})

    progress, _ = await follow(fake_bus, script)
    assert progress.path == ()
    assert trio.current_time() < 3


async def test_the_path_is_asked_for_at_the_end(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """Once the build has ended the graph is asked for, and the critical path is known."""
    asked = Asked(fake_bus, told)
    await asked.open()
    told.message(event("vpc::a", "running", 0), event("vpc::a", "completed", 2, seconds=2.0))
    told.status = "done"

    async def script() -> None:
        publish(fake_bus, "build.create.done", {"id": BUILD})

    progress, _ = await follow(fake_bus, script)
    assert [span.component for span in progress.path] == ["vpc::a"]


async def test_a_build_that_waits_after_an_error_is_not_over(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """After a reconnect a scheduler's word counts: with an error and nothing running the build may go on."""
    asked = Asked(fake_bus, told)
    await asked.open()

    async def script() -> None:
        publish(fake_bus, SUBJECT, told.message(event("vpc::a", "errored", 0, error="boom")))
        await trio.sleep(3)
        fake_bus.disconnect()
        await trio.sleep(1)
        fake_bus.reconnect()
        await trio.sleep(100)
        publish(fake_bus, "build.create.done", {"id": BUILD})

    progress, notes = await follow(fake_bus, script)
    assert progress.error is None
    assert not any("missed" in note for note in notes.notes)


async def test_events_wait_for_a_snapshot_that_is_older(
    fake_bus: FakeBus, told: Told, autojump_clock: trio.abc.Clock
) -> None:
    """What is published after a snapshot was made, and comes in before it, is not undone by it."""
    asked = Asked(fake_bus, told)
    asked.held = []
    await asked.open()

    async def script() -> None:
        await trio.sleep(1)
        publish(fake_bus, SUBJECT, told.message(event("vpc::a", "running", 1)))
        await trio.sleep(1)
        assert asked.held
        for reply, answer in asked.held:
            publish(fake_bus, reply, answer)
        asked.held = None
        await trio.sleep(1)
        seen.append(list(progress.running))
        publish(fake_bus, "build.create.done", {"id": BUILD})

    seen: list[list[str]] = []
    progress = Progress(BUILD, "build.create", trio.current_time(), total=1, behind=True)
    async with open_following(fake_bus, BUILD, "build.create") as following, trio.open_nursery() as nursery:
        nursery.start_soon(script)
        await show(fake_bus, following, progress, Notes())
    assert seen == [["vpc::a"]]


@pytest.mark.parametrize(
    ("forbidden", "said"),
    [
        ("build.create", "submit builds: the broker refused to publish on build.create"),
        (SUBJECT, f"follow builds: the broker refused to subscribe to {SUBJECT}"),
    ],
)
async def test_who_may_not_submit_is_told_at_once(
    fake_bus: FakeBus, capsys: pytest.CaptureFixture[str], forbidden: str, said: str
) -> None:
    """`run` says what it may not; a build that nobody could follow is not submitted."""
    submission = Submission.of(prepare(build(change("vpc::a"), id=BUILD)), b"{}")
    fake_bus.forbidden.add(forbidden)
    heard: list[Message] = []
    await fake_bus.subscribe("build.*", heard.append)
    with trio.fail_after(2):
        try:
            code = await run_build(fake_bus, submission)
        except SteeringError as error:
            code, text = 1, str(error)
        else:
            text = capsys.readouterr().err.removeprefix("scheduler: ").rstrip()
    assert (code, text) == (1, f"this user may not {said}")
    assert not heard


@pytest.mark.parametrize(
    ("problems", "said"),
    [
        ([("changes[0]._provider", "is missing")], ": changes[0]._provider: is missing\n"),
        ([("a", "x"), ("b", "y")], ": it has 2 problems:\n  a: x\n  b: y\n"),
        ([], ": no room\n"),
    ],
)
async def test_a_rejection_is_told_once(
    fake_bus: FakeBus, capsys: pytest.CaptureFixture[str], problems: list[tuple[str, str]], said: str
) -> None:
    """Its message is the first of its details."""
    details = [{"place": place, "message": message} for place, message in problems]
    message = ": ".join(problems[0]) if problems else "no room"
    error = {"code": "invalid", "message": message, "details": details}

    def reject(message: Message) -> None:
        publish(fake_bus, message.reply, {"id": BUILD, "status": "rejected", "error": error})

    await fake_bus.subscribe("build.create", reject)
    submission = Submission.of(prepare(build(change("vpc::a"), id=BUILD)), b"{}")
    assert await run_build(fake_bus, submission) == 1
    assert capsys.readouterr().err == f"scheduler: the scheduler rejected the build (invalid){said}"


class Intake:
    """A scheduler that has some builds already, and keeps what is submitted to it."""

    def __init__(self, bus: FakeBus, **answers: JSON) -> None:
        self.bus = bus
        self.answers = answers
        """Answer to a build, by its id; others are accepted, and reported at once."""
        self.submitted: list[JSON] = []
        self.summary: JSON = {}
        """Answer about any build; empty: nobody answers."""

    async def open(self) -> None:
        await self.bus.subscribe("build.create", self._take)
        if self.summary:
            answer = self.summary
            await self.bus.subscribe(
                "scheduler.build.get", lambda message: publish(self.bus, message.reply, answer)
            )

    def _take(self, message: Message) -> None:
        document = json.loads(message.data)
        self.submitted.append(document)
        id_ = document["id"]
        publish(self.bus, message.reply, {"id": id_, "status": "accepted"} | self.answers.get(id_, {}))
        if id_ not in self.answers:
            publish(self.bus, "build.create.done", document)


REJECTED = {"status": "rejected", "error": {"code": "finished", "message": "a build old", "details": []}}
RUNNING = {"status": "rejected", "error": {"code": "running", "message": "it runs", "details": []}}
FINISHED = {"finished": True}


def submission(id_: str = "old") -> Submission:
    document = build(change("vpc::a"), id=id_)
    return Submission.of(prepare(document), json.dumps(document).encode())


@pytest.mark.parametrize(("answer", "how"), [(REJECTED, "ran before"), (RUNNING, "is running")])
async def test_other_content_under_an_id_is_one_line_with_the_cure(
    fake_bus: FakeBus, capsys: pytest.CaptureFixture[str], answer: JSON, how: str
) -> None:
    """Whether the other build still runs or not."""
    await Intake(fake_bus, old=answer).open()
    assert await run_build(fake_bus, submission()) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"scheduler: old {how}, with other content; nothing was sent:"
        " submit this one with --fresh, or with another --id\n"
    )


@pytest.mark.parametrize(
    "case",
    [
        (FINISHED, "ran before"),
        (REJECTED, "ran before, with other content"),
        (RUNNING, "is running, with other content"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
async def test_a_fresh_run_gets_an_id_of_its_own(
    fake_bus: FakeBus,
    capsys: pytest.CaptureFixture[str],
    autojump_clock: trio.abc.Clock,
    case: tuple[JSON, str],
    as_json: bool,
) -> None:
    """The rest of the build is the same; the new id is told, with JSON beside the lines."""
    answer, why = case
    intake = Intake(fake_bus, old=answer)
    await intake.open()
    code = await run_build(fake_bus, submission(), json=as_json, renew=lambda one: one.renamed("old-2"))
    out, err = capsys.readouterr()
    first, second = intake.submitted
    assert code == 0
    assert second == first | {"id": "old-2"}
    text = f"old {why}; this is submitted as old-2\n"
    assert text in (err if as_json else out)
    if as_json:
        assert {json.loads(line)["build"] for line in out.splitlines()} == {"old-2"}


def never(one: Submission) -> Submission:
    raise AssertionError(one)


async def test_a_fresh_run_of_a_new_build_keeps_its_id(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock
) -> None:
    """So does any refusal that another id would not cure."""
    intake = Intake(fake_bus, busy={"status": "rejected", "error": {"code": "busy", "message": "later"}})
    await intake.open()
    assert await run_build(fake_bus, submission("new"), renew=never) == 0
    assert await run_build(fake_bus, submission("busy"), renew=never) == 1
    assert [one["id"] for one in intake.submitted] == ["new", "busy"]


@pytest.mark.parametrize(
    "case",
    [
        ({"status": "done"}, 0, "done  1 component in 7.0s", "done since today"),
        (
            {"status": "errored", "error": "vpc::a: no"},
            1,
            "errored after 7.0s: vpc::a: no",
            "errored since today",
        ),
    ],
)
async def test_without_a_stored_report_the_scheduler_tells_the_end(
    fake_bus: FakeBus,
    capsys: pytest.CaptureFixture[str],
    autojump_clock: trio.abc.Clock,
    case: tuple[JSON, int, str, str],
) -> None:
    """A build that ran before ends as it did then, with its duration; the last line says since when."""
    fields, code, first, last = case
    intake = Intake(fake_bus, old=FINISHED)
    intake.summary = {"now": T + 9, "accepted": T, "ended": T + 7, "total": 1, "seq": 2, **fields}
    intake.summary["counts"] = {"completed": 1 - code, "errored": code}
    await intake.open()
    assert await run_build(fake_bus, submission()) == code
    out = capsys.readouterr().out.splitlines()
    assert first in out
    assert out[-1].startswith(last)
    assert "; nothing was sent" in out[-1]
