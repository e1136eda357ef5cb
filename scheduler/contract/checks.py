"""The checks, in an order in which one finding explains the next.

The first request says whether there is a connector at all; without an answer nothing else is asked. Each
check has a component of its own, so that none is answered from the memory of another.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import trio

from scheduler.contract import Verdict
from scheduler.contract.plan import Plan
from scheduler.contract.probe import Exchange, Heard, Probe
from scheduler.contract.reading import (
    SCHEMA,
    Reading,
    Reply,
    beat_problem,
    differences,
    judge_fields,
    judge_ids,
    misfits,
)
from scheduler.text import seconds, write_duration

_SETTLED: Final = 0.2
"""Seconds in which a second reply to the same request comes, if there is one."""
_SLOW: Final = 0.2
"""Seconds of an answer below which requests beside each other tell nothing."""
_SERIAL: Final = 0.8
"""Share of the time of one request after the other from which on they were not beside each other."""
_WATCHED: Final = 3
"""Heartbeats that are awaited."""
_STOPPED: Final = 10.0
"""Seconds for a connector to stop what is given up."""
_HOSTILE: Final = 10.0
"""Seconds for the refusal of what nobody could carry out."""
_STALLED: Final = 1.5
"""Intervals without a heartbeat after which the work counts as stopped."""
_MESSAGES: Final[Mapping[str, bytes]] = {
    "no JSON": b'{"name": ',
    "no object": b"[1, 2]",
    "an empty body": b"",
}
_REASON: Final = "scheduler check-connector gives it up"


def _shown(value: float) -> str:
    """Return seconds for people: ``3ms``, ``1.5s``, ``2m00s``."""
    return seconds(value) if value >= 1 else write_duration(round(value, 3))


class _Ended(Exception):
    """The connector has ended amid the check."""


def _check_heard(exchange: Exchange) -> None:
    if exchange.unheard and not exchange.replies:
        raise _Ended


class Checks:
    """Checks of one connector.

    Args:
        probe: asks it.
        plan: what it is asked.
    """

    def __init__(self, probe: Probe, plan: Plan) -> None:
        self._probe = probe
        self._requests = probe.requests
        self._plan = plan
        self._reading = Reading(plan.fields, plan.slow or {})
        self.verdict = Verdict(probe.requests.target.subject, probe.requests.build)

    async def run(self) -> Verdict:
        """Make all checks.

        Raises:
            BusError: the bus cannot be used.
        """
        exchange = self._probe.ask(self._requests.first("first", self._plan.fields))
        heard = await exchange.answer(self._plan.timeout)
        if heard is None:
            self._unanswered(exchange)
            return self.verdict
        took = heard.at - exchange.sent
        self.verdict.passed("answer", f"after {_shown(took)}")
        # Whatever comes twice has come by now.
        await trio.sleep(_SETTLED)
        reply = self._judge_form(exchange, heard)
        try:
            await self._ask_twice(exchange, reply)
            await self._watch()
            await self._ask_together(took)
            await self._send_nonsense()
        except _Ended:
            # What is left would say that it does not answer, in other words each.
            self.verdict.failed(
                "answer",
                f"nobody subscribes to {self.verdict.subject} any more",
                "see why the connector has ended, or has lost its connection, and start it again",
            )
        return self.verdict

    async def _answer(self, exchange: Exchange, within: float | None = None) -> Heard | None:
        """Return the first reply, if one comes in time.

        Raises:
            _Ended: nobody has the request.
        """
        heard = await exchange.answer(self._plan.timeout if within is None else within)
        _check_heard(exchange)
        return heard

    def _unanswered(self, exchange: Exchange) -> None:
        subject = self.verdict.subject
        if exchange.unheard:
            self.verdict.failed(
                "answer",
                f"nobody subscribes to {subject}",
                "start the connector; see that it is on this broker, in this account, and may subscribe",
            )
        else:
            self.verdict.failed(
                "answer",
                f"none within {_shown(self._plan.timeout)}",
                f"reply to the message's reply subject, or on {subject}.done; --timeout if it takes longer",
            )

    # ---- the reply

    def _judge_form(self, exchange: Exchange, heard: Heard) -> Reply | None:
        """Judge the first reply; return it if it can be read."""
        verdict, target = self.verdict, self.verdict.subject
        reply = self._reading.read(heard.data, heard.suffix)
        if isinstance(reply, str):
            verdict.failed("reply", reply, SCHEMA)
            return None
        ways = {
            f"on {target}.{one.suffix}" if one.suffix else "on its reply subject" for one in exchange.replies
        }
        where = " and ".join(sorted(ways))
        problem = misfits(reply.body)
        if problem:
            verdict.warned("reply", f"understood, but {problem}", SCHEMA)
        elif len(exchange.replies) > len(ways):
            verdict.warned("reply", f"{len(exchange.replies)} of them, {where}", "answer each request once")
        elif not reply.completed:
            verdict.warned(
                "reply",
                f"errored: {self._reading.shown(reply.error)}",
                "name a component in --body that the connector can carry out: the rest says less without",
            )
        else:
            verdict.passed("reply", f"completed, {where}")
        judge_ids(verdict, exchange.request, reply.body, shared=heard.suffix is not None)
        judge_fields(verdict, exchange.request, reply.body)
        return reply

    # ---- acting once

    async def _ask_twice(self, exchange: Exchange, reply: Reply | None) -> None:
        if reply is None or not reply.completed:
            for name in ("same key", "same attempt"):
                self.verdict.skipped(name, "only what is completed has to be remembered")
            return
        self._probe.ask_again(exchange)
        self._compare(
            "same attempt",
            reply,
            await self._answer(exchange),
            "remember attempts (Nats-Msg-Id) and send the reply again: it may have been lost",
        )
        again = self._probe.ask(self._requests.next(exchange.request))
        self._compare(
            "same key",
            reply,
            await self._answer(again),
            "look up what exists by the key (Scheduler-Component-Key), or pass it to the cloud as its token",
        )

    def _compare(self, name: str, first: Reply, heard: Heard | None, cure: str) -> None:
        if heard is None:
            self.verdict.failed(name, f"no answer within {_shown(self._plan.timeout)}", cure)
            return
        second = self._reading.read(heard.data, heard.suffix)
        if isinstance(second, str):
            self.verdict.failed(name, second, SCHEMA)
        elif not second.completed:
            self.verdict.failed(name, f"errored: {self._reading.shown(second.error)}", cure)
        elif different := differences(first.body, second.body):
            self.verdict.failed(name, f"it acted twice, or answers differently: {different}", cure)
        else:
            self.verdict.passed(name, "the same answer")

    # ---- while it works

    async def _watch(self) -> None:
        """Watch a request for which the connector has to send heartbeats, then give it up."""
        plan = self._plan
        fields = plan.fields if plan.slow is None else plan.slow
        exchange = self._probe.ask(self._requests.first("slow", fields, plan.within))
        last = exchange.sent + (plan.timeout if plan.slow is None else _WATCHED * plan.within)
        answered = await exchange.until(lambda: bool(exchange.replies) or exchange.unheard, last)
        _check_heard(exchange)
        until = exchange.replies[0].at if exchange.replies else trio.current_time()
        self._judge_beats(exchange, until)
        if plan.slow is None:
            self.verdict.skipped(
                "cancel", "not tested: it needs a component that takes long", "--slow-body FILE"
            )
        elif answered:
            took = _shown(until - exchange.sent)
            self.verdict.skipped(
                "cancel",
                f"not tested: answered after {took}",
                f"a --slow-body that takes longer than {_shown(_WATCHED * plan.within)}",
            )
        else:
            await self._cancel(exchange)

    def _judge_beats(self, exchange: Exchange, until: float) -> None:
        within, verdict = self._plan.within, self.verdict
        beats = [beat for beat in exchange.beats if beat.at <= until]
        cure = f"beat on the subject in Scheduler-Heartbeat, a third of {within:g} s apart"
        problems = filter(None, (beat_problem(beat.data) for beat in beats))
        if problem := next(problems, ""):
            verdict.failed(
                "heartbeats",
                problem,
                "a heartbeat is empty, or a JSON object: see `scheduler help connectors`",
            )
            return
        times = [exchange.sent, *(beat.at for beat in beats), until]
        longest = max(later - earlier for earlier, later in pairwise(times))
        if until - exchange.sent <= within:
            verdict.skipped(
                "heartbeats",
                f"not tested: answered after {_shown(until - exchange.sent)}",
                f"a --slow-body that takes longer than {_shown(within)}",
            )
        elif not beats:
            verdict.warned(
                "heartbeats",
                f"none in {_shown(until - exchange.sent)}: only the timeout tells that it died",
                cure,
            )
        elif longest > within:
            verdict.failed(
                "heartbeats", f"{_shown(longest)} passed without one, in place of {within:g} s", cure
            )
        else:
            verdict.passed("heartbeats", f"{len(beats)}, at most {_shown(longest)} apart")

    async def _cancel(self, exchange: Exchange) -> None:
        """Give an attempt up, and see whether the connector stops working on it."""
        within, verdict = self._plan.within, self.verdict
        beating = len(exchange.beats)
        began = trio.current_time()
        self._probe.give_up(exchange, _REASON)
        cure = f"subscribe to {self._requests.target.cancels}, end that attempt's work, and reply errored"
        patience = max(_STOPPED, _WATCHED * within)
        await exchange.until(lambda: bool(exchange.replies), began + patience)
        if exchange.replies:
            heard = exchange.replies[0]
            reply = self._reading.read(heard.data, heard.suffix)
            after = f"after {_shown(heard.at - began)}"
            if isinstance(reply, str):
                verdict.failed("cancel", reply, SCHEMA)
            elif reply.completed:
                # So does one that has never heard of it, and was about to be done.
                longer = f"a --slow-body that takes longer, or {cure}"
                verdict.warned("cancel", f"completed {after}, as if nothing had been said", longer)
            else:
                verdict.passed("cancel", f"answered errored {after}")
            return
        last = exchange.beats[-1].at if exchange.beats else began
        if not beating:
            verdict.warned("cancel", f"no answer within {_shown(patience)}; it may still be at work", cure)
        elif trio.current_time() - last <= _STALLED * within:
            verdict.failed("cancel", f"it still works on it after {_shown(patience)}", cure)
        else:
            verdict.passed("cancel", f"no heartbeat since {_shown(max(0.0, last - began))} after it")

    # ---- many, and nonsense

    async def _ask_together(self, one: float) -> None:
        number, verdict = self._plan.together, self.verdict
        if not number:
            verdict.skipped("together", "not tested: --together 0")
            return
        asked = [
            self._probe.ask(self._requests.first(f"{index}", self._plan.fields))
            for index in range(1, number + 1)
        ]
        began = trio.current_time()
        heard = [await self._answer(exchange) for exchange in asked]
        answered = [reply.at for reply in heard if reply is not None]
        cure = "work on requests beside each other, up to a bound, and read all the time"
        if len(answered) < number:
            seen = f"{len(answered)} of {number} are answered within {_shown(self._plan.timeout)}"
            verdict.failed("together", seen, cure)
            return
        took = max(answered) - began
        seen = f"{number} at once are answered within {_shown(took)}"
        if one >= _SLOW and number > 1 and took >= _SERIAL * number * one:
            verdict.warned("together", f"{seen}, one after the other", cure)
        else:
            verdict.passed("together", seen)

    async def _send_nonsense(self) -> None:
        if not self._plan.hostile:
            self.verdict.skipped("nonsense", "not tested", "--hostile")
            return
        silent, done = [], []
        limit = min(self._plan.timeout, _HOSTILE)
        for index, (name, body) in enumerate(_MESSAGES.items()):
            heard = await self._answer(self._probe.ask(self._requests.first(f"bad-{index}", body)), limit)
            if heard is None:
                silent.append(name)
            else:
                reply = self._reading.read(heard.data, heard.suffix)
                if isinstance(reply, str) or reply.completed:
                    done.append(name)
        cure = "reply errored, on the reply subject, to what cannot be read: silence lasts until the timeout"
        if silent:
            self.verdict.failed("nonsense", f"no answer to {', '.join(silent)}", cure)
        elif done:
            self.verdict.failed("nonsense", f"{', '.join(done)}: answered, but not as an error", cure)
        else:
            self.verdict.passed("nonsense", f"errored: {', '.join(_MESSAGES)}")
