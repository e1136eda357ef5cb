"""One build from its submission to its report, as those see it who run it: page, metrics, traces.

SESSION=1 takes 10,000 components, and the pictures of the documents; otherwise there are fewer.
"""

import json
import os
import re
import shutil
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from integration.conftest import World
from integration.harness import Process, eventually, states
from integration.test_traces import Collector, attributes
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from playwright.sync_api import Browser, Page, expect
from support.brokers import nats_server
from support.receivers import run_receiver

from browser.conftest import TOKEN, OpenWindow, Place, log_in
from browser.test_access import IMAGES
from scheduler.local.generate import generate

FULL = bool(os.environ.get("SESSION"))
SIZE = 10_000 if FULL else 400
CLOUD = Path(__file__).with_name("cloud.py")
LATENCY = "1.5" if FULL else "0.3"
LIMIT = 400 if FULL else 15
MONITORING = Path(__file__).parents[2] / "scheduler" / "monitoring"
SCRAPED = 1.0
"""Seconds between two looks of Prometheus."""
LONG = 300.0


class Prometheus:
    """A Prometheus with our rules, that looks at one scheduler."""

    def __init__(self, stack: ExitStack, folder: Path, target: str) -> None:
        shutil.copy(MONITORING / "alerts.yml", folder)
        every = f"{SCRAPED:g}s"
        config = {
            "global": {"scrape_interval": every, "evaluation_interval": every},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "scheduler", "static_configs": [{"targets": [target]}]}],
        }
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(config))
        command = (
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--web.listen-address=127.0.0.1:0",
        )
        process = stack.enter_context(Process(*command))
        said = re.compile(r"Listening on.* address=(127\.0\.0\.1:\d+)")
        eventually(lambda: said.search(process.errors) is not None, "Prometheus", LONG)
        found = said.search(process.errors)
        assert found is not None
        self.url = f"http://{found[1]}/"

    def ask(self, expression: str) -> dict[str, float]:
        """Return what an expression is now, by the values of its labels."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}api/v1/query?{query}", timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return {" ".join(one["metric"].values()): float(one["value"][1]) for one in found["data"]["result"]}


def expressions() -> list[str]:
    """Return the expressions of the dashboard, as Grafana asks them with all that can be chosen."""
    found: list[str] = []

    def collect(panels: list[dict[str, Any]]) -> None:
        for panel in panels:
            found.extend(target["expr"] for target in panel.get("targets", ()))
            collect(panel.get("panels", []))

    collect(json.loads((MONITORING / "dashboard.json").read_text())["panels"])
    variables = {"$instance": ".*", "$provider": ".*", "$__rate_interval": "1m"}
    for name, value in variables.items():
        found = [one.replace(name, value) for one in found]
    return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    with run_receiver() as receiver:
        yield Collector(receiver)


def submit(world: World, document: dict[str, Any], collector: Collector) -> None:
    """Submit a build within a span of the submitter's own."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{collector.url}/v1/traces")))
    with provider.get_tracer("session").start_as_current_span("submit"):
        carrier: dict[str, str] = {}
        inject(carrier)
        world.client().publish_with("build.create", json.dumps(document).encode(), "", carrier)
    provider.shutdown()


def picture(page: Page, name: str) -> None:
    """Take a picture for the documents, where they are to be taken."""
    if FULL:
        page.screenshot(path=IMAGES / f"session-{name}.png", animations="disabled")


def order(page: Page, verb: str, reason: str = "") -> None:
    """Give an order on the page, after its question."""
    page.get_by_role("button", name=verb).click()
    dialog = page.get_by_role("dialog")
    if reason:
        dialog.get_by_label("Reason").fill(reason)
    dialog.get_by_role("button", name=verb).click()
    expect(dialog.get_by_role("heading", name="Done")).to_be_visible()
    dialog.get_by_role("button", name="Close").click()


def in_flight(page: Page, place: Place, build: str) -> int:
    """Return the number of components in flight, as the page's interface has it."""
    answer = page.request.get(f"{place.url}api/builds/{build}")
    assert answer.ok, answer.text()
    counts: dict[str, int] = answer.json()["counts"]
    return counts.get("running", 0)


@pytest.mark.timeout(300)
def test_a_build_is_watched_from_submission_to_report(
    open_window: OpenWindow,
    chromium: Browser,
    collector: Collector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Live, with a pause from the page; metrics, report and trace say the same of it."""
    otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    monkeypatch.setenv("OTEL_SERVICE_NAME", "submitter")
    document = generate(SIZE)
    build, total = document["id"], len(document["changes"])
    types = sorted({change["_component"] for change in document["changes"]})
    with ExitStack() as stack:
        world = World(stack, stack.enter_context(nats_server({"max_payload": 8 << 20}, jetstream=True)))
        place = Place(
            world,
            "--web-orders",
            f"--web-token={TOKEN}",
            "--metrics=0",
            f"--limits=*={LIMIT}",
            "--instance=scheduler-0",
            env=otel,
        )
        served = place.scheduler.await_log("metrics and health are served")["address"]
        target = served.removeprefix("http://").rstrip("/")
        prometheus = None
        if shutil.which("prometheus"):
            prometheus = Prometheus(stack, tmp_path, target)
        env = {**otel, "OTEL_SERVICE_NAME": "connector"}
        command = (sys.executable, str(CLOUD), world.server.url, LATENCY, *types)
        cloud = stack.enter_context(Process(*command, env=env))
        eventually(lambda: "connector is ready" in cloud.output + cloud.errors, "the connectors")
        reports = world.client().listen("build.*.done", "build.*.error")

        page = open_window(place.url)
        log_in(page, place)
        submit(world, document, collector)
        page.get_by_role("link", name=build).click()
        expect(page.locator("#status")).to_contain_text("running")
        expect(page.get_by_role("application")).to_be_visible()
        eventually(lambda: in_flight(page, place, build) > 10, "many in flight", LONG)
        time.sleep(8 if FULL else 0)
        picture(page, "running")

        order(page, "Pause", "the provider has an incident")
        expect(page.locator("#alert")).to_contain_text("Paused by anna")
        eventually(lambda: in_flight(page, place, build) == 0, "the end of what is in flight", LONG)
        expect(page.locator("#status")).to_contain_text("paused")
        if prometheus is not None:
            shown = prometheus
            eventually(lambda: list(shown.ask("scheduler_requests_in_flight").values()) == [0], "in flight")
        picture(page, "paused")
        order(page, "Resume")

        reports.first(lambda message: message.json["id"] == build, LONG)
        # Of a large one the message says only where it is.
        report = json.loads(world.command("report", build).output)
        assert Counter(states(report).values()) == {"completed": total}
        expect(page.locator("#status")).to_contain_text("done")
        page.get_by_role("link", name="Timeline").click()
        expect(page.get_by_role("application")).to_be_visible()
        page.wait_for_timeout(1_500)
        expect(page.locator("#alert")).not_to_contain_text("report waits")
        picture(page, "done")

        outcomes = Counter[str]()
        for name, count in metrics(target).items():
            outcomes[name.partition('outcome="')[2].partition('"')[0]] += round(count)
        assert +outcomes == {"completed": total}
        if prometheus is None:
            print("NO PROMETHEUS IS INSTALLED: its numbers were not compared", file=sys.stderr)
        else:
            compare(prometheus, chromium, total)
        check_trace(collector, total)


def metrics(target: str) -> dict[str, float]:
    """Return the samples of the components' counter, by name with labels."""
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = [line.rpartition(" ") for line in lines if line.startswith("scheduler_components_total{")]
    return {name: float(value) for name, _, value in found}


def compare(prometheus: Prometheus, chromium: Browser, total: int) -> None:
    """Compare what the dashboard asks with the report, and see that all it asks has an answer."""
    completed = 'sum(scheduler_components_total{outcome="completed"})'
    eventually(lambda: list(prometheus.ask(completed).values()) == [total], "the count of components")
    assert list(prometheus.ask("sum(scheduler_attempts_total)").values()) == [total]
    assert prometheus.ask("sum by (status) (scheduler_builds_ended_total)")["done"] == 1
    unanswered = [one for one in expressions() if not prometheus.ask(one)]
    # Nothing failed, so there is no series of what failed.
    assert all("errored" in one or "retries" in one or "dropped" in one for one in unanswered), unanswered
    firing = prometheus.ask('ALERTS{alertstate="firing"}')
    assert not firing
    if FULL:
        take_prometheus(prometheus, chromium)


def take_prometheus(prometheus: Prometheus, chromium: Browser) -> None:
    """Take a picture of what Prometheus has; its page is not ours to judge."""
    fields: dict[str, str] = {
        "g0.expr": "sum by (state) (scheduler_build_components)",
        "g0.tab": "0",
        "g0.range_input": "1m",
    }
    with chromium.new_context(viewport={"width": 1280, "height": 860}) as context:
        page = context.new_page()
        page.goto(f"{prometheus.url}graph?{urllib.parse.urlencode(fields)}")
        page.wait_for_timeout(3_000)
        picture(page, "prometheus")


def check_trace(collector: Collector, total: int) -> None:
    """Check that all is one trace: each call below its attempt, each attempt below the build."""

    def counts() -> Counter[str]:
        return Counter(name for name, _ in collector.spans)

    # All spans are read each time.
    until = time.monotonic() + LONG
    while (found := counts()) != {"submitter": 1, "scheduler": 1 + total, "connector": total}:
        assert time.monotonic() < until, found
        print(found)
        time.sleep(1)
    spans = collector.spans
    assert len({span.trace_id for _, span in spans}) == 1
    [submitted], [run] = collector.named("submit"), collector.named("build.create")
    assert run.parent_span_id == submitted.span_id
    attempts = {
        span.span_id: span for name, span in spans if name == "scheduler" and span.name.startswith("request ")
    }
    calls = [span for name, span in spans if name == "connector"]
    assert {span.parent_span_id for span in attempts.values()} == {run.span_id}
    assert len(attempts) == len(calls) == total
    assert {span.parent_span_id for span in calls} == attempts.keys()
    last = max(calls, key=lambda span: span.end_time_unix_nano)
    for span in (submitted, run, attempts[last.parent_span_id], last):
        began = (span.start_time_unix_nano - submitted.start_time_unix_nano) / 1e9
        took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        what = attributes(span).get("scheduler.component.id", "")
        print(f"{began:8.3f} s  {took:8.3f} s  {span.span_id.hex()}  {span.name} {what}")
