"""Everything that a test of durability takes: broker, perhaps a proxy, service, connectors, who submits."""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from nats.errors import NoRespondersError
from support.brokers import NatsServer, nats_server
from support.clusters import Cluster

from integration.durable.checker import Evidence, Published, violations
from integration.durable.proxy import Proxy
from integration.durable.reader import LastWord, Reader
from integration.harness import ALL_OF_AWS, CANARY, DEADLINE, Feed, Message, Process, Scheduler, Submitter

JSON = dict[str, Any]

NOTICED = 2.0
"""Seconds after the broker is back in which a service finds out that its connection was lost."""
SEED = int(os.environ.get("DURABLE_SEED", "1"))
"""What decides the moments; another one makes another test of it."""


class Recorder(Process):
    """The process of ``recorder.py``."""

    def __init__(self, url: str, record: Path, options: JSON, *subjects: str) -> None:
        script = str(Path(__file__).with_name("recorder.py"))
        super().__init__(sys.executable, script, url, str(record), json.dumps(options), *subjects)
        self.record = record
        self.out.first(lambda line: '"connected"' in line)

    @property
    def records(self) -> list[JSON]:
        """What it wrote down so far."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return [json.loads(line) for line in lines]

    def requests(self, build: str | None = None, component: str | None = None) -> list[JSON]:
        """The requests that came, in order."""
        return [
            one
            for one in self.records
            if one["event"] == "request"
            and build in {None, one["build"]}
            and component in {None, one["component"]}
        ]

    def await_request(
        self, build: str, component: str, *, times: int = 1, deadline: float = DEADLINE
    ) -> JSON:
        """Wait until a component was requested for the nth time."""
        found = self.out.count(times, lambda line: _is(line, "request", build, component), deadline)
        request: JSON = json.loads(found[-1])
        return request

    def await_answer(self, build: str, component: str) -> None:
        """Wait until a component was answered."""
        self.out.first(lambda line: _is(line, "answer", build, component))

    def drain(self) -> None:
        """Have it take no more requests, and wait until those that came are answered."""
        self.write(json.dumps({"drain": True}) + "\n")
        self.out.first(lambda line: '"drained"' in line)

    def release(self, gate: str) -> None:
        """Open a gate."""
        self.write(json.dumps({"release": gate}) + "\n")
        self.out.first(lambda line: '"released"' in line and json.loads(line)["gate"] == gate)

    def idle(self, deadline: float = DEADLINE) -> None:
        """Wait until every request has its answer."""

        def look(lines: list[str]) -> bool:
            events = [json.loads(line)["event"] for line in lines]
            return events.count("request") == events.count("answer")

        self.out.wait(look, deadline, "an answer to every request")


def _is(line: str, event: str, build: str, component: str) -> bool:
    if f'"{event}"' not in line:
        return False
    entry = json.loads(line)
    return (entry["event"], entry["build"], entry["component"]) == (event, build, component)


class Scene:
    """One broker with JetStream, and what works on it; the service can be killed and started again.

    Args:
        stack: ends everything that is started here.
        folder: where the connectors' record is kept.
        options: of the connectors, see ``recorder.py``.
        config: of the broker.
        env: variables of the service; ``SCHEDULER_RESEND`` also tells the checker what to expect.
        proxied: the service reaches its broker through a proxy.
        brokers: a cluster in place of the one broker.
    """

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        options: JSON | None = None,
        *,
        config: JSON | None = None,
        env: dict[str, str] | None = None,
        proxied: bool = False,
        brokers: Cluster | None = None,
    ) -> None:
        self.stack = stack
        given = dict(config or {})
        given["jetstream"] = {"store_dir": "store", "sync_interval": "always", **given.get("jetstream", {})}
        self.server: NatsServer = brokers.servers[0] if brokers else stack.enter_context(nats_server(given))
        self.proxy: Proxy | None = stack.enter_context(Proxy(self.server.port)) if proxied else None
        url = self.proxy.url if self.proxy else brokers.url if brokers else self.server.url
        self.env = {"NATS_URL": url, "SCHEDULER_STORE": "auto", **(env or {})}
        self._record, self._options = folder / "record", options or {}
        self.recorder = self.start_recorder(self.server)
        self.reader = Reader(self.server.url)
        stack.callback(self.reader.close)
        self.submitter = Submitter(self.reader)
        self.appends: Feed[Message] = self.reader.listen("scheduler.log.*")
        """Records as they are published, which is before anybody knows whether they are stored."""
        self.submitted: dict[str, JSON] = {}
        self.began = 0.0
        """When the last service was started."""
        self.kills: list[float] = []
        self.outages: list[tuple[float, float]] = []
        self.services: list[Scheduler] = []

    @property
    def service(self) -> Scheduler:
        """The service that was started last."""
        return self.services[-1]

    def start(
        self,
        *arguments: str,
        ready: bool = True,
        env: dict[str, str] | None = None,
        site: Path | None = None,
    ) -> Scheduler:
        """Start a service; it takes builds on return, where ``ready`` is to be awaited.

        ``site`` is the folder to import another version from.
        """
        self.began = time.time()
        # The folder that a process is in comes before all others.
        other = {"PYTHONPATH": str(site)} if site else {}
        service = Scheduler(*arguments, env={**self.env, **other, **(env or {})}, cwd=site)
        self.stack.callback(service.close)
        self.services.append(service)
        if ready:
            service.await_log("ready")
        return service

    def start_recorder(self, server: NatsServer) -> Recorder:
        """Start connectors at a server; all write the same record."""
        recorder = Recorder(server.url, self._record, self._options, *ALL_OF_AWS)
        self.stack.callback(recorder.close)
        return recorder

    def instance(self, name: str, deadline: float = DEADLINE) -> str:
        """Return the name of the process that is ``name`` in the fleet; empty where there is none now."""
        with suppress(NoRespondersError, TimeoutError):
            return str(self.reader.request(f"scheduler.instance.{name}.ping", b"", deadline)["instance"])
        return ""

    def kill(self, service: Scheduler | None = None) -> None:
        """Kill a service, the last one where none is given; it is dead on return."""
        service = service or self.service
        service.kill()
        self.kills.append(time.time())
        check_text(service)

    def restart(self, *arguments: str, ready: bool = True, env: dict[str, str] | None = None) -> Scheduler:
        """Kill the service and start it again at once."""
        self.kill()
        return self.start(*arguments, ready=ready, env=env)

    def restart_broker(self) -> None:
        """Kill the broker and start it again, with its port and its data."""
        with self.outage():
            self.server.restart()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """While this lasts, and until it is noticed, the service may lose its connection once."""
        began = time.time()
        yield
        self.outages.append((began, time.time() + NOTICED))

    def submit(self, *builds: JSON, deadline: float = DEADLINE) -> None:
        """Hand builds in; each is accepted."""
        for build in builds:
            answer = self.reader.request(build["action"], build, deadline)
            assert (answer["id"], answer["status"]) == (build["id"], "accepted"), answer
            self.submitted[build["id"]] = build

    def try_to_submit(self, build: JSON) -> bool:
        """Hand a build in, if anybody takes builds right now; returns whether that is so."""
        try:
            self.submit(build)
        except NoRespondersError:
            return False
        return True

    @property
    def unfinished(self) -> dict[str, LastWord]:
        """The builds that are not reported, as far as their logs say, with the last word of those."""
        words = self.reader.last_words(list(self.submitted))
        found = {build: words.get(build, LastWord()) for build in self.submitted}
        return {build: word for build, word in found.items() if word.status != "reported"}

    def settle(self, deadline: float = DEADLINE) -> None:
        """Wait until every build that was submitted is reported, and the log says so."""
        self.until(lambda: not self.unfinished, deadline, "every report")

    def take_hold(self, deadline: float = DEADLINE) -> None:
        """Wait until the service has committed something to each build that it took up.

        A build that takes its process with it three times in a row is left alone; a test that kills processes
        faster than they get to work would have that said of its builds.
        """

        def took_hold() -> bool:
            return all(word.loads == "0" and word.time > self.began for word in self.unfinished.values())

        self.until(took_hold, deadline, "a commit to every build that was taken up")

    def until(self, test: Callable[[], bool], deadline: float, what: str) -> None:
        """Wait until something is true that no event tells of."""
        until = time.monotonic() + deadline
        while not test():
            assert time.monotonic() < until, f"{what} has not come: {self.unfinished}\n{self._tail()}"
            time.sleep(0.02)

    def _tail(self) -> str:
        return "\n".join(line[:400] for line in list(self.service.err)[-40:])

    def evidence(self, *, watched: bool = True, excuses: Sequence[str] = ()) -> Evidence:
        """What is known of what has happened; ``watched``: this client saw every report go by."""
        self.reader.flush()
        return Evidence(
            submitted=self.submitted,
            log=self.reader.log(),
            reports=self.reader.stored_reports(),
            records=self.recorder.records,
            published=self._published() if watched else None,
            kills=self.kills,
            outages=self.outages,
            resend=self.env.get("SCHEDULER_RESEND", "unsent"),
            excuses=excuses,
        )

    def _published(self) -> list[Published]:
        return [
            Published(one.subject, one.headers.get("Nats-Msg-Id", ""), self.reader.whole(one.json))
            for one in self.submitter.reports
        ]

    def check(self, *, watched: bool = True, excuses: Sequence[str] = ()) -> Evidence:
        """Nothing that has to hold was violated; returns the evidence."""
        evidence = self.evidence(watched=watched, excuses=excuses)
        found = violations(evidence)
        assert not found, f"{len(found)} violations (seed {SEED}):\n" + "\n".join(found[:40])
        assert not self.recorder.errors
        return evidence

    def end(self) -> None:
        """End the service that was started last in order; its log is clean."""
        code, _ = self.service.stop()
        check_text(self.service)
        assert code == 0, self.service.errors


def check_text(service: Scheduler) -> None:
    """No traceback in what a service wrote, and no body of a component."""
    assert "Traceback" not in service.errors, service.errors
    assert '"exception"' not in service.errors, service.errors
    assert CANARY not in service.errors


def passed(feed: Feed[Any], number: int, test: Callable[[Any], bool], deadline: float) -> bool:
    """Wait for so many further items of a kind; False where they don't come."""
    seen = len(feed)
    found = 0

    def look(items: list[Any]) -> bool:
        nonlocal seen, found
        while seen < len(items):
            found += test(items[seen])
            seen += 1
        return found >= number

    with suppress(AssertionError):
        return feed.wait(look, deadline)
    return False


def pause(randomness: random.Random, most: float) -> None:
    """Let a random while pass, so that what comes next meets things at any moment of theirs."""
    time.sleep(randomness.random() * most)
