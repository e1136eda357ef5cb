"""The commands that ask a scheduler, or steer one: what they ask, print, refuse, and exit with."""

import json
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from support.fake_bus import FakeBus
from support.feeds import JSON, T, Told, event
from support.shell import FakeScheduler
from trio.testing import wait_all_tasks_blocked

from scheduler import cli
from scheduler.client.counts import STATES
from scheduler.client.repeating import request_again
from scheduler.commands.signing import user_and_host

BUILD = "prod-eu-1"
COMMANDS = (
    "list",
    "status",
    "watch",
    "why",
    "cancel",
    "pause",
    "resume",
    "retry",
    "skip",
    "approve",
    "reject",
    "extend",
    "limit",
    "timeline",
    "wait",
    "instances",
)
ARGUMENTS = {
    "list": [],
    "instances": [],
    "skip": [BUILD, "vpc::a"],
    "approve": [BUILD, "vpc::a"],
    "reject": [BUILD, "vpc::a"],
    "extend": [BUILD, "vpc::a", "60"],
    "limit": [BUILD, "vpc.create.*=5"],
}


def tokens(command: str) -> list[str]:
    """A correct call of a command."""
    return [command, *ARGUMENTS.get(command, [BUILD])]


def said(scheduler: FakeScheduler) -> JSON:
    """Return what the first order says, without its id and its expiry, which it must have."""
    order = dict(scheduler.asked[0][1])
    assert len(order.pop("order")) == 16
    assert order.pop("expires") > time.time()
    return order


Captured = pytest.CaptureFixture[str]


# What goes wrong, of every command.


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_scheduler_the_cure_is_said(
    scheduler: FakeScheduler, capsys: Captured, command: str
) -> None:
    """Nobody answers: one line with what to do, and exit code 1."""
    scheduler.there = False
    assert cli.main(tokens(command)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "no scheduler answers" in err
    assert "--nats-url" in err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("json_wanted", [False, True])
def test_a_missing_permission_is_said_at_once(
    scheduler: FakeScheduler, capsys: Captured, command: str, json_wanted: bool
) -> None:
    """One line with what this user may not do, and what the broker refused; nothing of a timeout."""
    verb = "get" if command in {"status", "watch", "timeline", "wait"} else command
    scheduler.forbidden.add(f"scheduler.build.{verb}")
    began = time.monotonic()
    assert cli.main([*tokens(command), *(["--json"] if json_wanted else [])]) == 1
    assert time.monotonic() - began < 5
    out, err = capsys.readouterr()
    assert re.fullmatch(
        rf"scheduler: this user may not [a-z ]+: the broker refused to publish on scheduler.build.{verb}\n",
        err,
    )
    assert not json_wanted or json.loads(out)["error"]["code"] == "forbidden"


def test_pausing_without_permission(scheduler: FakeScheduler, capsys: Captured) -> None:
    """It is said in the words of what was asked for."""
    scheduler.forbidden.add("scheduler.build.pause")
    assert cli.main(["pause", BUILD]) == 1
    assert capsys.readouterr().err == (
        "scheduler: this user may not pause builds: the broker refused to publish on scheduler.build.pause\n"
    )


@pytest.mark.parametrize("subject", [f"scheduler.event.{BUILD}", "build.create.done"])
def test_watching_without_permission(scheduler: FakeScheduler, capsys: Captured, subject: str) -> None:
    """What may not be subscribed to is no reason to wait."""
    scheduler.forbidden.add(subject)
    scheduler.say("get", running_build().answer(1.0))
    assert cli.main(["watch", BUILD]) == 1
    assert capsys.readouterr().err == (
        f"scheduler: this user may not follow builds: the broker refused to subscribe to {subject}\n"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_refusal_is_one_line(scheduler: FakeScheduler, capsys: Captured, command: str) -> None:
    """What the scheduler refuses is said in its words, made harmless, with exit code 1."""
    verb = "get" if command in {"status", "watch", "timeline", "wait"} else command
    scheduler.refuse(verb, "unknown", "there is no build \x1b[2Jx")
    assert cli.main(tokens(command)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("scheduler: there is no build \\x1b[2Jx; see `scheduler list --all`, ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_refusal_is_json_where_json_is_wanted(
    scheduler: FakeScheduler, capsys: Captured, command: str
) -> None:
    """With --json a refusal is a document too, beside the line for people."""
    verb = "get" if command in {"status", "watch", "timeline", "wait"} else command
    scheduler.refuse(verb, "conflict", "it is over")
    assert cli.main([*tokens(command), "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"v": 1, "error": {"code": "conflict", "message": "it is over"}}
    assert err == "scheduler: it is over\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["status"], "BUILD"), (["watch"], "BUILD"), (["why"], "BUILD"), (["cancel"], "BUILD"),
        (["skip", "b"], "COMPONENT"), (["extend", "b", "c"], "DURATION"), (["limit", "b"], "LIMITS"),
        (["list", "x"], "x"), (["pause", "b", "c"], "c"), (["status", "b", "--wat"], "--wat"),
        (["extend", "b", "c", "soon"], "soon"), (["extend", "b", "c", "0"], "'0' is not a duration above 0s"),
        (["extend", "b", "c", "nan"], "'nan' is not a duration"),
        (["extend", "b", "c", "1e99"], "up to 30d"),
        (["limit", "b", "vpc=5"], "LIMITS: 'vpc=5'"), (["limit", "b", " , "], "LIMITS"),
        (["limit", "b", "*=0"], "LIMITS: '*=0'"),
        (["skip", "b", "c", "--output", "{"], "--output is not JSON"),
        (["skip", "b", "c", "--output", "[]"], "--output must be a JSON object"),
        (["skip", "b", "c", "--output", "@/no/where"], "cannot read '/no/where'"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_line_and_exit_code_2(
    scheduler: FakeScheduler, capsys: Captured, arguments: list[str], part: str
) -> None:
    """Nothing is asked where the command line is wrong."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert part in err
    assert scheduler.asked == []


def test_a_scheduler_that_says_nothing_is_not_waited_for(
    scheduler: FakeScheduler, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its deadline a command says that nothing is known, and exits with 1."""
    asked = partial(request_again, pauses=[0.01] * 5)
    monkeypatch.setattr("scheduler.client.ask.request_again", lambda *given: asked(*given[:3]))
    scheduler.silent = True
    assert cli.main(["pause", BUILD]) == 1
    assert "no answer on scheduler.build.pause, asked 5 times within 0.05 s" in capsys.readouterr().err
    assert len(scheduler.asked) == 5
    assert len({question["order"] for _, question in scheduler.asked}) == 1


# Orders.


@pytest.mark.parametrize(
    ("arguments", "verb", "order"),
    [
        (["cancel", BUILD], "cancel", {}),
        (
            ["cancel", BUILD, "--now", "--reason", "wrong region"],
            "cancel",
            {"now": True, "reason": "wrong region"},
        ),
        (["pause", BUILD], "pause", {}),
        (["pause", BUILD, "--as", "anna", "--reason", "quota"], "pause", {"by": "anna", "reason": "quota"}),
        (["resume", BUILD], "resume", {}),
        (["retry", BUILD], "retry", {}),
        (["retry", BUILD, "vpc::a"], "retry", {"component": "vpc::a"}),
        (["retry", BUILD, "--from", "vpc::a"], "retry", {"component": "vpc::a", "from": "vpc::a"}),
        (["skip", BUILD, "vpc::a"], "skip", {"component": "vpc::a"}),
        (
            ["skip", BUILD, "vpc::a", "--output", '{"id": 7}'],
            "skip",
            {"component": "vpc::a", "output": {"id": 7}},
        ),
        (["approve", BUILD, "approve::a"], "approve", {"component": "approve::a"}),
        (
            ["reject", BUILD, "approve::a", "--reason", "no", "--as", "anna"],
            "reject",
            {"component": "approve::a", "reason": "no", "by": "anna"},
        ),
        (["extend", BUILD, "vpc::a", "1h30m"], "extend", {"component": "vpc::a", "seconds": 5400.0}),
        (["extend", BUILD, "vpc::a", "90.5"], "extend", {"component": "vpc::a", "seconds": 90.5}),
        (
            ["limit", BUILD, "vpc.create.*=5, *.create.aws=20/s,*=9/m"],
            "limit",
            {"limits": {"vpc.create.*": 5, "*.create.aws": "20/s", "*.*.*": "9/m"}},
        ),
    ],
)
def test_an_order_is_given_and_its_answer_printed(
    scheduler: FakeScheduler, capsys: Captured, arguments: list[str], verb: str, order: JSON
) -> None:
    """Each order goes to its verb with what was said, and the scheduler's sentence is printed."""
    scheduler.say(verb, {"id": BUILD, "status": "paused", "components": 3, "text": "so it \x1bis"})
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == "so it \\x1bis\n"
    assert [asked for asked, _ in scheduler.asked] == [verb]
    assert said(scheduler) == {"id": BUILD, "by": user_and_host(), **order}


def test_a_retry_takes_a_component_or_where_to_begin(capsys: Captured) -> None:
    """They mean different things, and both at once would be a guess."""
    assert cli.main(["retry", BUILD, "vpc::a", "--from", "vpc::b"]) == 2
    assert "--from: it is instead of COMPONENT" in capsys.readouterr().err


def test_an_order_s_answer_as_json(scheduler: FakeScheduler, capsys: Captured) -> None:
    """With --json the answer is printed as it came, with the version."""
    answer = {"id": BUILD, "status": "paused", "components": 3, "text": "so it is"}
    scheduler.say("pause", answer)
    assert cli.main(["pause", BUILD, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"v": 1, **answer}


def test_an_output_can_come_from_a_file(scheduler: FakeScheduler, tmp_path: Path) -> None:
    """A file's digits are kept, all of them."""
    path = tmp_path / "output.json"
    path.write_text('{"n": 123456789012345678901234567890}')
    scheduler.say("skip", {"text": "ok"})
    assert cli.main(["skip", BUILD, "vpc::a", "--output", f"@{path}"]) == 0
    assert scheduler.asked[0][1]["output"] == {"n": 123456789012345678901234567890}


def test_no_variable_gives_an_order_its_force(
    scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wanted once is said in the call: a variable changes nothing."""
    monkeypatch.setenv("SCHEDULER_NOW", "true")
    monkeypatch.setenv("SCHEDULER_REASON", "x")
    scheduler.say("cancel", {"text": "ok"})
    assert cli.main(["cancel", BUILD]) == 0
    assert said(scheduler) == {"id": BUILD, "by": user_and_host()}


# Questions.


def summary(build: str, status: str = "running", **fields: Any) -> JSON:
    counts = dict.fromkeys(STATES, 0) | {"completed": 7, "waiting": 5}
    return {
        "id": build,
        "action": "build.create",
        "status": status,
        "total": 12,
        "counts": counts,
        "run": 1,
        **fields,
    }


def test_builds_are_a_table(scheduler: FakeScheduler, capsys: Captured) -> None:
    """In a pipe each build is a line, with all of its id and error; finished ones lack counts."""
    builds = [
        summary(BUILD, accepted=9e9),
        {
            "id": "x" * 100,
            "action": "build.delete",
            "status": "errored",
            "accepted": T,
            "error": "vpc::a: boom " * 9,
        },
    ]
    scheduler.say("list", {"builds": builds, "next": None})
    assert cli.main(["list", "--all"]) == 0
    head, second, first = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "ACTION", "STATUS", "DONE", "AGE", "ERROR"]
    assert first.split() == [BUILD, "build.create", "running", "7/12", "0.0s"]
    assert second.split()[:4] == ["x" * 100, "build.delete", "errored", "-"]
    assert second.endswith(("vpc::a: boom " * 9).rstrip())
    assert scheduler.asked[0][1]["all"] is True


def test_builds_as_json(scheduler: FakeScheduler, capsys: Captured) -> None:
    """The list is one document, of all pages."""
    scheduler.say("list", {"builds": [summary(BUILD)], "next": None})
    assert cli.main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"v": 1, "builds": [summary(BUILD)]}


def test_instances_that_do_not_answer_are_complained_of(scheduler: FakeScheduler, capsys: Captured) -> None:
    """Once each, whatever the pages say; the list itself is printed as ever."""
    pages = iter(
        [
            {"builds": [summary("a")], "next": "a", "silent": [{"name": "beta"}]},
            {"builds": [summary("b")], "next": None, "silent": [{"name": "beta"}, {"name": "gamma"}]},
        ]
    )
    scheduler.answers["list"] = lambda _: next(pages)
    assert cli.main(["list", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert [one["id"] for one in document["builds"]] == ["a", "b"]
    assert document["silent"] == [{"name": "beta"}, {"name": "gamma"}]
    assert err.splitlines() == [
        f"scheduler: {name} does not answer: its builds are not in the list" for name in ("beta", "gamma")
    ]


def test_owners_are_a_column_where_there_are_several(scheduler: FakeScheduler, capsys: Captured) -> None:
    """Of one instance it would say nothing."""
    for owners, shown in ((("alpha", "beta"), True), (("alpha", "alpha"), False)):
        builds = [summary(f"b{n}", owner=owner, epoch=1) for n, owner in enumerate(owners)]
        scheduler.say("list", {"builds": builds, "next": None})
        assert cli.main(["list"]) == 0
        head, first, _ = capsys.readouterr().out.splitlines()
        assert ("OWNER" in head.split()) is shown
        assert ("alpha" in first.split()) is shown


@pytest.mark.parametrize(("flags", "part"), [([], "--all"), (["--all"], "no builds")])
def test_no_builds_is_said(scheduler: FakeScheduler, capsys: Captured, flags: list[str], part: str) -> None:
    """Nothing to list is no error."""
    scheduler.say("list", {"builds": [], "next": None})
    assert cli.main(["list", *flags]) == 0
    assert part in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "finished", "ids"),
    [
        ([], False, ["c", "b", "a"]),
        (["--sort", "name"], False, ["a", "b", "c"]),
        (["--status", "cancelled", "errored"], True, ["c", "b"]),
        (["--status", "cancelled", "--status", "running", "--json"], True, ["b", "a"]),
        (["--since", "1h"], True, ["b", "a"]),
        (["--name", "eu-?"], False, ["c"]),
    ],
)
def test_builds_are_chosen_and_sorted(
    scheduler: FakeScheduler, capsys: Captured, flags: list[str], finished: bool, ids: list[str]
) -> None:
    """Finished ones are asked for where a flag means them; cancelled is a status of its own."""
    now = time.time()
    builds = [
        {"id": "a", "status": "running", "accepted": now - 60},
        {"id": "b", "status": "cancelled", "accepted": now - 9_000, "ended": now - 120},
        {"id": "c", "status": "errored", "accepted": now - 90_000, "ended": now - 80_000, "name": "eu-1"},
    ]
    scheduler.say("list", {"builds": builds, "next": None})
    assert cli.main(["list", *flags]) == 0
    out = capsys.readouterr().out
    if "--json" in flags:
        assert [one["id"] for one in json.loads(out)["builds"]] == ids
    else:
        assert [line.split()[0] for line in out.splitlines()[1:]] == ids
    assert scheduler.asked == [("list", {"all": finished, "limit": 1_000})]


def test_a_choice_that_fits_no_build_is_said(scheduler: FakeScheduler, capsys: Captured) -> None:
    """It is another thing than that there are none."""
    scheduler.say("list", {"builds": [{"id": "a", "status": "running"}], "next": None})
    assert cli.main(["list", "--name", "zzz"]) == 0
    assert capsys.readouterr().out == "the only build is not like that\n"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--since", "soon"], "--since: 'soon' is no time, such as 2h, today, yesterday, 2026-01-31 or"),
        (["--status", "broken"], 'Invalid value "broken" for --status. Choose from: "running", "paused"'),
        (["--sort", "size"], 'Invalid value "size" for --sort. Choose from: "accepted", "ended"'),
    ],
)
def test_a_wrong_choice_is_said(
    scheduler: FakeScheduler, capsys: Captured, flags: list[str], text: str
) -> None:
    """With what there is to choose from; nothing is asked."""
    assert cli.main(["list", *flags]) == 2
    assert text in capsys.readouterr().err
    assert scheduler.asked == []


def running_build() -> Told:
    told = Told("vpc::a", "vpc::b", "vpc::c", "vpc::d", build=BUILD)
    told.message(
        event("vpc::a", "running", 0),
        event("vpc::b", "errored", 4, error="no such image\x1b[2J"),
        event("vpc::c", "retrying", 5, error="throttled"),
    )
    return told


def test_the_status_of_a_build(scheduler: FakeScheduler, capsys: Captured) -> None:
    """It says how far the build is, what runs, what failed and why, limits, and the expected end."""
    limits = [{"limit": "vpc.create.*=5", "waiting": 7}]
    scheduler.say("get", running_build().answer(10.0, name="eu", eta=60.0, limits=limits))
    assert cli.main(["status", BUILD]) == 0
    out = capsys.readouterr().out
    for part in (
        "prod-eu-1 (eu)  build.create  running", "accepted 10.0s ago, about 1m00s left", "0 of 4",
        "0 done  1 running  1 waiting  1 retrying  1 errored", "limits reached: vpc.create.*=5 (7 wait)",
        "10.0s  vpc::a", "vpc::c: attempt 1: throttled", "vpc::b: no such image\\x1b[2J",
    ):  # fmt: skip
        assert part in out
    assert "\x1b" not in out


def test_the_components_of_a_build(scheduler: FakeScheduler, capsys: Captured) -> None:
    """With --components each of them is a line, errored ones first."""
    scheduler.say("get", running_build().answer(10.0))
    assert cli.main(["status", BUILD, "--components"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["COMPONENT", "vpc::b", "vpc::c", "vpc::a", "vpc::d"]
    assert lines[3].split() == ["vpc::a", "running", "1", "0.0s", "10.0s"]


def test_what_was_never_sent_has_no_tries(scheduler: FakeScheduler, capsys: Captured) -> None:
    """The scheduler tells the number of the attempt that would be the first."""
    components = [
        {"id": "a", "state": "waiting", "attempt": 1},
        {"id": "b", "state": "skipped", "attempt": 1},
        {"id": "c", "state": "errored", "attempt": 1, "due": T, "ended": T},
        {"id": "d", "state": "errored", "attempt": 2, "due": T, "sent": T, "ended": T},
    ]
    scheduler.say("get", {**running_build().answer(10.0), "components": components})
    assert cli.main(["status", BUILD, "--components"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {row[0]: row[2] for row in rows[1:]} == {"a": "-", "b": "-", "c": "-", "d": "2"}


@pytest.mark.parametrize(
    ("told", "waited", "worked"),
    [
        ({"state": "completed", "attempt": 2, "sent": T + 6, "ended": T + 10}, "2.0s", "8.0s"),
        ({"state": "running", "attempt": 2, "sent": T + 6}, "2.0s", "8.0s"),
        ({"state": "retrying", "attempt": 1}, "6.0s", "4.0s"),
        # Those of an earlier run.
        ({"state": "running", "attempt": 2, "due": T + 5, "sent": T + 6}, "1.0s", "4.0s"),
    ],
)
def test_earlier_attempts_are_no_waiting(
    scheduler: FakeScheduler, capsys: Captured, told: JSON, waited: str, worked: str
) -> None:
    """What a component waited and worked is what its timeline says."""
    component = {"id": "a", "due": T, "failed": [{"sent": T, "failed": T + 4, "again": T + 6}], **told}
    scheduler.say("get", {**running_build().answer(10.0), "components": [component]})
    assert cli.main(["status", BUILD, "--components"]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[-2:] == [waited, worked]


@pytest.mark.parametrize(("number", "said"), [(1, "1 waits"), (2, "2 wait"), (1_000, "1,000 wait")])
def test_what_waits_is_told_in_the_right_number(
    scheduler: FakeScheduler, capsys: Captured, number: int, said: str
) -> None:
    """One waits, several wait."""
    limits = [{"limit": "vpc.create.*=5", "waiting": number}]
    scheduler.say("get", running_build().answer(10.0, limits=limits))
    assert cli.main(["status", BUILD]) == 0
    assert f"vpc.create.*=5 ({said})" in capsys.readouterr().out


def test_the_newest_build_is_the_last(scheduler: FakeScheduler, capsys: Captured) -> None:
    """Whatever page it came in on; one of which no time is known comes first."""
    times = {"a": {"accepted": T + 3}, "b": {"accepted": T + 1}, "c": {}, "d": {"ended": T + 2}}
    pages = iter([{"builds": [summary(one, "done", **given)], "next": one} for one, given in times.items()])
    scheduler.answers["list"] = lambda _: next(pages, {"builds": [], "next": None})
    assert cli.main(["list", "--all"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ID", "c", "b", "d", "a"]


@pytest.mark.parametrize("owned", [{"owner": "alpha", "epoch": 2}, {}])
def test_the_owner_of_a_build_is_shown(scheduler: FakeScheduler, capsys: Captured, owned: JSON) -> None:
    """By `status` and by `why`, where the scheduler tells it."""
    scheduler.say("get", summary(BUILD, components=[], next=None, **owned))
    scheduler.say("why", {"id": BUILD, "status": "running", "reasons": [], "more": 0, **owned})
    for command in ("status", "why"):
        assert cli.main([command, BUILD]) == 0
        assert ("owner alpha, epoch 2" in capsys.readouterr().out.splitlines()) is bool(owned)


def test_the_status_as_json(scheduler: FakeScheduler, capsys: Captured) -> None:
    """The answer is printed as it came, its components only where they are wanted."""
    answer = running_build().answer(10.0)
    scheduler.say("get", answer)
    expected = {"v": 1, **answer, "types": {}}
    del expected["next"]
    assert cli.main(["status", BUILD, "--components", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected
    assert cli.main(["status", BUILD, "--json"]) == 0
    del expected["components"]
    assert json.loads(capsys.readouterr().out) == expected


@pytest.mark.parametrize(
    ("status", "step"),
    [("paused", "scheduler resume"), ("errored", "scheduler retry"), ("quarantined", "scheduler release")],
)
def test_the_status_says_what_to_do_next(
    scheduler: FakeScheduler, capsys: Captured, status: str, step: str
) -> None:
    """A build that does not go on by itself has the command that makes it."""
    told = Told("vpc::a", build=BUILD)
    told.status = status
    scheduler.say("get", told.answer(1.0))
    assert cli.main(["status", BUILD]) == 0
    assert f"`{step} {BUILD}`" in capsys.readouterr().out


def test_why_is_said_in_sentences(scheduler: FakeScheduler, capsys: Captured) -> None:
    """Each reason is a line with its component, since when, the scheduler's text, and a cure."""
    reasons = [
        {"component": "vpc::a", "state": "running", "seconds": 75.0, "text": "no answer yet",
         "subject": "vpc.create.aws", "connector": "gone",
         "cures": ["scheduler retry b vpc::a --now\x1b"]},
        {"component": "vpc::b", "state": "waiting", "seconds": 5.0, "text": "waits\x1b for vpc::a"},
        {"text": "it is paused", "seconds": 2.0},
        {"component": "vpc::c", "text": "nobody", "subject": "vpc.find.aws", "connector": "none"},
    ]  # fmt: skip
    scheduler.say("why", {"id": BUILD, "status": "running", "reasons": reasons, "more": 4})
    assert cli.main(["why", BUILD]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{BUILD} is running",
        "vpc::a (running): no answer yet; start it again; what it has lost can be sent again",
        "  scheduler retry b vpc::a --now\\x1b",
        "vpc::b (waiting for 5.0s): waits\\x1b for vpc::a",
        "it is paused (for 2.0s)",
        "vpc::c: nobody; start a connector of vpc.find.aws",
        f"4 reasons more; `scheduler why {BUILD} COMPONENT` asks about one.",
    ]
    assert scheduler.asked == [("why", {"id": BUILD})]


def test_why_of_one_component_as_json(scheduler: FakeScheduler, capsys: Captured) -> None:
    """A component is asked about by its id; the answer is printed as it came."""
    answer = {"id": BUILD, "status": "done", "reasons": [], "more": 0}
    scheduler.say("why", answer)
    assert cli.main(["why", BUILD, "vpc::a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"v": 1, **answer}
    assert scheduler.asked == [("why", {"id": BUILD, "component": "vpc::a"})]


def test_nothing_to_wait_for_is_said(scheduler: FakeScheduler, capsys: Captured) -> None:
    """A build without reasons is told to have none."""
    scheduler.say("why", {"id": BUILD, "status": "done", "reasons": [], "more": 0})
    assert cli.main(["why", BUILD]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{BUILD} is done", "Nothing is waiting."]


def test_why_of_a_failed_build_names_the_next_step(scheduler: FakeScheduler, capsys: Captured) -> None:
    """Below the reasons stands the command that usually comes next."""
    reasons = [{"text": "it has failed: quota"}]
    scheduler.say("why", {"id": BUILD, "status": "errored", "reasons": reasons, "more": 0})
    assert cli.main(["why", BUILD]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "it has failed: quota",
        f"`scheduler retry {BUILD}` retries what failed",
    ]


def chain(length: int, status: str = "done") -> JSON:
    """The answer about a chain of components of a second each, of which a quarter is waiting."""
    components = []
    for number in range(length):
        times = {"due": T + number, "sent": T + number + 0.25, "ended": T + number + 1}
        needs = [f"c{number - 1:03}"] if number else []
        components.append({"id": f"c{number:03}", "state": "completed", "needs": needs, **times})
    return {"id": BUILD, "status": status, "now": T + length, "components": components, "next": None}


@pytest.mark.parametrize(("length", "bars"), [(0, 0), (1, 1), (20, 20), (21, 16 + 10), (100, 16 + 10)])
def test_the_timeline_fits_80_columns(
    scheduler: FakeScheduler, capsys: Captured, length: int, bars: int
) -> None:
    """A small build has a bar for each component, a large one for its path, in part, and the slowest."""
    scheduler.say("get", chain(length))
    assert cli.main(["timeline", BUILD]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert sum(line.startswith("* c") for line in lines) == bars


def test_the_timeline_tells_waiting_from_working(scheduler: FakeScheduler, capsys: Captured) -> None:
    """Each bar stands where in time it was, with both durations; the path's are added up."""
    scheduler.say("get", chain(4))
    assert cli.main(["timeline", BUILD]) == 0
    out = capsys.readouterr().out
    assert "critical path: 4 components, 3.0s working, 1.0s waiting" in out
    (line,) = [line for line in out.splitlines() if "c001" in line]
    assert line.split()[-1] == "+0.2s"
    assert "░█" in line
    assert "4 components: 3.0s of work, 1.0s of waiting for slots and limits" in out


def test_the_timeline_as_json(scheduler: FakeScheduler, capsys: Captured) -> None:
    """Path, slowest and the times of each component are one document."""
    scheduler.say("get", chain(3))
    assert cli.main(["timeline", BUILD, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["v"], document["id"], document["status"]) == (1, BUILD, "done")
    assert document["critical_path"] == ["c000", "c001", "c002"]
    assert (document["seconds"], document["waiting"], document["working"]) == (3.0, 0.75, 2.25)
    assert document["components"][1] == {
        "id": "c001", "state": "completed", "due": T + 1, "sent": T + 1.25, "ended": T + 2,
        "waited": 0.25, "worked": 0.75, "waits": {"slots": 0.25},
    }  # fmt: skip
    assert scheduler.asked[0][1]["graph"] is True


def test_the_timeline_as_a_trace(scheduler: FakeScheduler, capsys: Captured, tmp_path: Path) -> None:
    """With --trace a file is written that is a JSON array of events."""
    scheduler.say("get", chain(3))
    assert cli.main(["timeline", BUILD, "--trace", str(tmp_path / "trace.json")]) == 0
    events = json.loads((tmp_path / "trace.json").read_text())
    assert {one["ph"] for one in events} == {"M", "X"}
    assert cli.main(["timeline", BUILD, "--trace", str(tmp_path)]) == 1
    assert f"cannot write '{tmp_path}'" in capsys.readouterr().err


def test_the_timeline_as_spans(scheduler: FakeScheduler, tmp_path: Path) -> None:
    """With --otlp a file is written that has a message of OTLP in each line."""
    scheduler.say("get", chain(3))
    path = tmp_path / "spans.jsonl"
    assert cli.main(["timeline", BUILD, "--otlp", str(path)]) == 0
    [line] = path.read_text().splitlines()
    [scope] = json.loads(line)["resourceSpans"][0]["scopeSpans"]
    assert [span["kind"] for span in scope["spans"]] == [1, 3, 3, 3]


def test_a_build_that_runs_is_not_written_as_spans(
    scheduler: FakeScheduler, capsys: Captured, tmp_path: Path
) -> None:
    """Its spans would change, and each has an end."""
    scheduler.say("get", chain(3, "running"))
    assert cli.main(["timeline", BUILD, "--otlp", str(tmp_path / "spans.jsonl")]) == 1
    assert f"{BUILD} is running: --otlp is for builds that have ended" in capsys.readouterr().err
    assert not (tmp_path / "spans.jsonl").exists()


def test_the_timeline_as_a_script(scheduler: FakeScheduler, capsys: Captured, tmp_path: Path) -> None:
    """With --behaviour a file is written that simulated connectors take."""
    answer = chain(3)
    for one in answer["components"]:
        one["subject"] = "vpc.create.aws"
    scheduler.say("get", answer)
    path = tmp_path / "rules.json"
    assert cli.main(["timeline", BUILD, "--behaviour", str(path)]) == 0
    assert f"written: {path}; for `scheduler simulate --behaviour`" in capsys.readouterr().err
    assert json.loads(path.read_text()) == {"vpc.create.aws": {"seconds": "0.75"}}


# Watching.


def test_a_running_build_is_watched_to_its_end(scheduler: FakeScheduler, capsys: Captured) -> None:
    """It subscribes before it asks, shows what it missed and what comes, and exits with 1 for an error."""
    told = Told("vpc::a", "vpc::b", build=BUILD)
    told.message(event("vpc::a", "errored", 1, error="boom"))
    scheduler.answers["get"] = lambda question: told.answer(2.0, components=question["components"])

    async def script(bus: FakeBus) -> None:
        await scheduler.asked_for_all.wait()
        await wait_all_tasks_blocked()
        message = told.message(event("vpc::b", "completed", 3, seconds=1.0))
        bus.publish(f"scheduler.event.{BUILD}", json.dumps(message).encode())
        bus.publish("build.create.error", json.dumps({"id": BUILD, "error": "vpc::a: boom"}).encode())

    scheduler.script = script
    assert cli.main(["watch", BUILD]) == 1
    out = capsys.readouterr().out
    assert "error   vpc::a: boom" in out
    assert "done    vpc::b (1.0s)" in out
    assert "1 done  0 running  0 waiting  1 errored" in out


@pytest.mark.parametrize(("status", "code", "word"), [("done", 0, "done"), ("errored", 1, "errored")])
def test_a_finished_build_shows_its_summary(
    scheduler: FakeScheduler, capsys: Captured, status: str, code: int, word: str
) -> None:
    """A build that is over is not waited for; the exit code says how it ended."""
    fields = {"ended": T + 3, **({"error": "c001: boom"} if status == "errored" else {})}
    components = chain(3)["components"]
    scheduler.say(
        "get", {**summary(BUILD, status, now=T + 99, accepted=T), **fields, "components": components}
    )
    assert cli.main(["watch", BUILD]) == code
    out = capsys.readouterr().out
    assert out.splitlines()[1].startswith(word)
    assert "3.0s" in out
    assert "critical path: 3 components, 3.0s, of which 0.8s waiting" in out


def test_watching_as_json_lines(scheduler: FakeScheduler, capsys: Captured) -> None:
    """With --json what happened before, what happens, and how it ended are a line each."""
    told = Told("vpc::a", build=BUILD)
    told.message(event("vpc::a", "running", 1))
    scheduler.answers["get"] = lambda question: told.answer(2.0, components=question["components"])

    async def script(bus: FakeBus) -> None:
        await scheduler.asked_for_all.wait()
        await wait_all_tasks_blocked()
        message = told.message(event("vpc::a", "completed", 3, seconds=1.0))
        bus.publish(f"scheduler.event.{BUILD}", json.dumps(message).encode())
        bus.publish("build.create.done", json.dumps({"id": BUILD}).encode())

    scheduler.script = script
    assert cli.main(["watch", BUILD, "--json"]) == 0
    lines = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [line.get("state", line.get("event")) for line in lines] == ["running", "completed", "ended"]
    assert [line.get("seq") for line in lines] == [None, 2, None]
    assert lines[-1]["status"] == "done"
