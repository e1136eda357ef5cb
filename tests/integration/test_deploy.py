"""The deployment that is printed, as processes: three brokers, three schedulers, users with nkeys."""

import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

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

    def __init__(self, stack: ExitStack, folder: Path, *, tls: bool) -> None:
        self._stack = stack
        self._folder = folder
        self._tls = tls
        assert cli.main(["deploy", "nats", *["--tls"][:tls], "--output", str(folder / "deploy")]) == 0
        if tls:
            subprocess.run(
                ["sh", "certificates.sh", "localhost"], cwd=folder / "deploy", timeout=60, check=True
            )
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
                elif name.startswith("NATS_TLS_"):
                    value = str(self._folder / "deploy" / value)
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
        plain = {"NATS_URL": self.url, "SCHEDULER_NKEY": str(key), "SCHEDULER_STORE": ""}
        return plain | (self.certificate(user) if self._tls else {})

    @property
    def certificates(self) -> Path:
        """The folder that the script made."""
        return self._folder / "deploy" / "certificates"

    def certificate(self, user: str) -> dict[str, str]:
        """Settings of a user's TLS."""
        names = {"CA": "ca.pem", "CERTIFICATE": f"{user}.pem", "KEY": f"{user}.key"}
        return {f"SCHEDULER_TLS_{setting}": str(self.certificates / name) for setting, name in names.items()}

    def start(self, user: str, *arguments: str, **more: str) -> Scheduler:
        command = Scheduler(*arguments, env={**self.variables(user), **more})
        self._stack.callback(command.close)
        return command


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def deployment(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """Brokers that were started."""
    with ExitStack() as stack:
        yield Deployment(stack, tmp_path, tls=request.param)


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Deployment]:
    """Brokers with TLS."""
    with ExitStack() as stack:
        yield Deployment(stack, tmp_path, tls=True)


def probe(address: str) -> int:
    """Ask a scheduler whether it is ready as its container is asked; returns the exit code."""
    services: dict[str, Any] = yaml.safe_load(public_files("compose")["compose.yaml"])["services"]
    scheduler = services["scheduler-0"]
    how, program, flags, code = scheduler["healthcheck"]["test"]
    assert (how, program) == ("CMD", "python")
    port = scheduler["environment"]["SCHEDULER_METRICS"].rpartition(":")[2]
    assert code.count(port) == 1
    command = [sys.executable, flags, code.replace(port, address.rpartition(":")[2])]
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=20, check=False).returncode


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
    addresses = []
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
        addresses.append(address)
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
    assert [probe(address) for address in addresses] == [0, 0, 0]
    for server in deployment.servers:
        server.kill()
    until = time.monotonic() + 60
    while probe(addresses[0]) != 1:
        assert time.monotonic() < until


def test_a_user_may_do_no_more_than_is_shipped(deployment: Deployment) -> None:
    """Neither with the key of another user, nor without one."""
    scheduler = deployment.start("scheduler", "serve", SCHEDULER_REPLICAS="3")
    scheduler.await_log("ready", deadline=60, store="jetstream")
    assert deployment.start("submitter", "pause", "b1").wait() == 1
    assert deployment.start("scheduler", "doctor", SCHEDULER_NKEY="").wait() == 1


def test_without_a_certificate_nobody_gets_to_log_in(secured: Deployment) -> None:
    """Not even with a key that is good; nor does a client speak with a broker of another authority."""
    settings = {**secured.variables("operator"), "SCHEDULER_TLS_CERTIFICATE": "", "SCHEDULER_TLS_KEY": ""}
    stranger = secured.start("operator", "instances", **settings)
    assert stranger.wait(60) == 1
    assert "certificate" in stranger.errors
    lost = secured.start("operator", "instances", **{**settings, "SCHEDULER_TLS_CA": ""})
    assert lost.wait(60) == 1
    assert "Traceback" not in stranger.errors + lost.errors


def test_brokers_take_no_route_without_a_certificate(secured: Deployment) -> None:
    """Before anything is said; whoever has one of the authority's is greeted."""
    place = secured.certificates
    known = ssl.create_default_context(cafile=str(place / "ca.pem"))
    known.load_cert_chain(place / "broker.pem", place / "broker.key")
    for port in secured.ports:
        assert greeting(port, known).startswith(b"INFO ")
        assert greeting(port, ssl.create_default_context(cafile=str(place / "ca.pem"))) == b""


def greeting(port: int, context: ssl.SSLContext) -> bytes:
    """The first line that somebody hears over TLS; empty where there is none."""
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as secure,
        secure.makefile("rb") as stream,
    ):
        return stream.readline()
    return b""


def test_the_page_of_a_deployment_asks_for_the_token(secured: Deployment, tmp_path: Path) -> None:
    """Where a proxy passes a request on, as the one that is printed does; with the token it answers."""
    words = ["deploy", "systemd", "--page", "--output", str(tmp_path / "page")]
    assert cli.main(words) == 0
    path = tmp_path / "page" / "keys" / "page.token"
    settings = {"SCHEDULER_WEB_TOKEN_FILE": str(path), "SCHEDULER_HTTP_HOSTS": "scheduler.example.com"}
    scheduler = secured.start(
        "scheduler", "serve", SCHEDULER_REPLICAS="3", SCHEDULER_WEB="127.0.0.1:0", **settings
    )
    scheduler.await_log("ready", deadline=60, store="jetstream")
    address = scheduler.await_log("the page is served")["address"]
    headers = {"Host": "scheduler.example.com", "X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    known = {**headers, "Authorization": f"Bearer {path.read_text().strip()}"}
    assert [status(f"{address}api/builds", one) for one in (headers, known)] == [401, 200]
    # It follows the builds of all instances by rights that the printed permissions give.
    assert "scheduler.event" not in scheduler.errors


def status(url: str, headers: dict[str, str]) -> int:
    """Status of the answer to a request."""
    try:
        with build_opener(ProxyHandler({})).open(Request(url, headers=headers), timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code
