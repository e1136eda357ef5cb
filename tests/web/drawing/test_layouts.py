"""The process that orders a graph: killed, hung, or left alone, nobody waits for it for long."""

import os
import select
import signal
import subprocess
import sys
import time

import httpx2
import pytest
import trio
from support.children import children_of
from support.durable import until
from support.pages import Visited, of, visited

from scheduler.web.drawing import layouts

WORKER = "scheduler.web.drawing.worker"


async def asked(page: Visited, number: signal.Signals) -> tuple[httpx2.Response, int]:
    """The layout whose process gets a signal as soon as it is there; and the id of that process."""
    answers: list[httpx2.Response] = []

    async def ask() -> None:
        answers.append(await page.client.get(of("b1", "layout")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await until(lambda: children_of(os.getpid(), WORKER), 10)
        [worker] = children_of(os.getpid(), WORKER)
        os.kill(worker, number)
        # The loop goes on, and answers others, while that one is awaited.
        await page.read("/api/session")
    return answers[0], worker


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
async def test_a_process_that_dies_or_hangs_costs_the_order_alone(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """The graph is drawn in plain waves within the deadline, and nothing of the process is left."""
    monkeypatch.setattr(layouts, "DEADLINE", 0.5)
    async with visited() as page:
        began = trio.current_time()
        answer, worker = await asked(page, number)
        assert trio.current_time() - began < 3.0
        assert (answer.json()["method"], answer.json()["wave"]) == ("waves", [0, 1])
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
        # For a while that is good enough, or each viewer would wait for the deadline.
        assert (await page.read(of("b1", "layout")))["method"] == "waves"


async def test_a_graph_that_was_not_ordered_is_ordered_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain waves have no tag by which a browser would keep them, and are given again for a while only."""
    monkeypatch.setattr(layouts, "PROVISIONAL", 0.0)
    async with visited() as page:
        answer, _ = await asked(page, signal.SIGKILL)
        assert "etag" not in answer.headers
        answer = await page.client.get(of("b1", "layout"))
        assert answer.json()["method"] == "ordered"
        assert "etag" in answer.headers


def test_the_process_ends_with_a_service_that_is_killed() -> None:
    """Though nobody is left to end it, and its input goes on."""
    code = "import subprocess, sys, os; subprocess.run([sys.executable, '-m', sys.argv[1], str(os.getpid())])"
    command = [sys.executable, "-c", code, WORKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as service:
        deadline = time.monotonic() + 20
        while not (found := children_of(service.pid, WORKER)):
            assert time.monotonic() < deadline, "no process was started"
            time.sleep(0.01)
        handle = os.pidfd_open(found[0])
        service.kill()
        try:
            assert select.select([handle], [], [], 20)[0], "it has not ended"
        finally:
            os.close(handle)
