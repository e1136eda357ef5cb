"""The deployment that is printed, as processes: three brokers, three schedulers, users with nkeys."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest
import yaml
from support.brokers import NatsServer
from support.clusters import free_ports

from integration.builds import build, component
from integration.harness import Scheduler
from scheduler import cli
from scheduler.deploy.files import public_files

pytestmark = pytest.mark.integration
INSTANCES = ("scheduler-0", "scheduler-1", "scheduler-2")


class Deployment:
    """Three brokers as `scheduler deploy nats` configures them, but for their addresses."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        assert cli.main(["deploy", "nats", "--output", str(folder / "deploy")]) == 0
        self.ports = free_ports(3)
        self.servers = [self._server(number) for number in range(3)]

    def _server(self, number: int) -> NatsServer:
        place = self._folder / f"n{number}"
        place.mkdir()
        server = NatsServer(place)
        text = (self._folder / "deploy" / "nats-server.conf").read_text()
        for old, new in {
            'http: "127.0.0.1:8222"': "",
            'listen: "0.0.0.0:4222"': "",
            'listen: "0.0.0.0:6222"': f'listen: "127.0.0.1:{self.ports[number]}"',
        }.items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        server.text = text
        with pytest.MonkeyPatch.context() as patch:
            for line in (self._folder / "deploy" / "broker.env").read_text().splitlines():
                name, value = line.split("=", 1)
                if name.startswith("NATS_ROUTE_") and name != "NATS_ROUTE_PASSWORD":
                    value = f"{value.rpartition('@')[0]}@127.0.0.1:{self.ports[int(name[-1])]}"
                patch.setenv(name, value)
            patch.setenv("NATS_SERVER_NAME", f"n{number}")
            patch.setenv("NATS_STORE_DIR", str(place / "store"))
            server.start()
        self._stack.callback(server.kill)
        return server

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers)

    def variables(self, user: str) -> dict[str, str]:
        """The environment of a user's commands."""
        key = self._folder / "deploy" / "keys" / f"{user}.nk"
        return {"NATS_URL": self.url, "SCHEDULER_NKEY": str(key), "SCHEDULER_STORE": ""}

    def start(self, user: str, *arguments: str, **more: str) -> Scheduler:
        command = Scheduler(*arguments, env={**self.variables(user), **more})
        self._stack.callback(command.close)
        return command


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """Brokers that were started."""
    with ExitStack() as stack:
        yield Deployment(stack, tmp_path)


def probe() -> str:
    """The shell line by which a container is asked whether it is ready."""
    services: dict[str, Any] = yaml.safe_load(public_files("compose")["compose.yaml"])["services"]
    line: str = services["scheduler-0"]["healthcheck"]["test"][1]
    return line.replace("$$", "$")


def probed_paths() -> list[str]:
    """The paths by which pods are asked whether they are ready, and alive; on the port that they serve."""
    manifest = next(yaml.safe_load_all(public_files("kubernetes")["schedulers.yaml"]))
    [container] = manifest["spec"]["template"]["spec"]["containers"]
    [port] = container["ports"]
    served = {one["name"]: one.get("value", "") for one in container["env"]}["SCHEDULER_METRICS"]
    assert served == f"0.0.0.0:{port['containerPort']}"
    asked = [container[kind]["httpGet"] for kind in ("readinessProbe", "livenessProbe")]
    assert {one["port"] for one in asked} == {port["name"]}
    return [one["path"] for one in asked]


def test_three_schedulers_share_builds_on_three_brokers(deployment: Deployment, tmp_path: Path) -> None:
    """Each logs in by its key, and is ready by its probe; a submitter's build is run."""
    for name in INSTANCES:
        scheduler = deployment.start(
            "scheduler",
            "serve",
            "--grace",
            "25s",
            SCHEDULER_INSTANCE=name,
            SCHEDULER_REPLICAS="3",
            SCHEDULER_METRICS="127.0.0.1:0",
        )
        scheduler.await_log("ready", deadline=60, store="jetstream")
        address = scheduler.await_log("metrics and health are served")["address"]
        for asked in probed_paths():
            with build_opener(ProxyHandler({})).open(f"http://{address}{asked}", timeout=20) as answer:
                assert answer.status == 200
    path = tmp_path / "build.json"
    path.write_text(json.dumps(build(component("note::1", action="none"))))
    run = deployment.start("submitter", "run", str(path))
    assert run.wait(60) == 0, run.errors
    shown = deployment.start("operator", "instances", "--json")
    assert shown.wait() == 0
    states = {one["name"]: one["standing"] for one in json.loads(shown.output)["instances"]}
    assert states == dict.fromkeys(INSTANCES, "active")
    assert ready(deployment, tmp_path, "scheduler-1") == 0
    assert ready(deployment, tmp_path, "scheduler-7") == 1
    assert deployment.start("submitter", "pause", "b1").wait() == 1
    assert deployment.start("scheduler", "doctor", SCHEDULER_NKEY="").wait() == 1


def ready(deployment: Deployment, folder: Path, name: str) -> int:
    """Run the probe of a container of this name; return its exit code."""
    command = folder / "bin" / "scheduler"
    command.parent.mkdir(exist_ok=True)
    command.write_text('#!/bin/sh\nexec "$PYTHON" -m scheduler "$@"\n')
    command.chmod(0o755)
    variables = {
        **os.environ,
        **deployment.variables("scheduler"),
        "PYTHON": sys.executable,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PATH": f"{command.parent}:/usr/bin:/bin",
        "SCHEDULER_INSTANCE": name,
    }
    return subprocess.run(["sh", "-c", probe()], env=variables, timeout=60, check=False).returncode
