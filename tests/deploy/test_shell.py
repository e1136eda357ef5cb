"""The shell lines that stand in the files: each is run, with programs that only note how they were called."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.brokers import binary

from scheduler.commands.catalogue import NAMES
from scheduler.deploy.files import KINDS, PLAIN, Extras, Kind, public_files

LINES = re.compile(r"(?m)^#   (.+)$")
"""Lines that people copy."""
NOTED = {"docker", "kubectl", "systemctl"}
"""Programs that a test cannot let act."""
EXPECTED: dict[Kind, list[str]] = {
    "compose": [
        "docker compose up --detach --wait",
        "docker compose exec scheduler-0 scheduler instances",
        "docker compose --profile monitoring up --detach --wait",
        "docker compose stop scheduler-0 scheduler-1 scheduler-2",
        "docker compose --profile monitoring down",
    ],
    "systemd": ["systemctl daemon-reload", "systemctl enable --now nats-server.service scheduler.service"],
    "kubernetes": [
        "kubectl apply --kustomize .",
        "kubectl rollout status statefulset/scheduler --timeout 5m",
    ],
    "nats": [],
}
OWN = {"compose": "compose.yaml", "systemd": "scheduler.env", "kubernetes": "kustomization.yaml"}
"""File of each kind that has its lines; for `nats` it is the configuration."""


def full(kind: Kind) -> Extras:
    """All that a kind may have."""
    return Extras(tls=True, page=kind != "nats")


def script(kind: Kind, extras: Extras = PLAIN) -> str:
    """The lines of a kind, as one script."""
    lines = LINES.findall(public_files(kind, extras)[OWN.get(kind, "nats-server.conf")])
    assert lines[0] == f"scheduler deploy {kind} {extras.flags}--output deploy"
    return "\n".join(lines)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with our command and the broker's, and in the place of others those that note their calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    note = f'#!/bin/sh\necho "$(basename "$0") $*" >> {tmp_path}/calls\n'
    run = f'#!/bin/sh\nexec {sys.executable} -m scheduler "$@"\n'
    for name, text in {**dict.fromkeys(NOTED, note), "scheduler": run}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "nats-server").symlink_to(binary())
    return folder


@pytest.mark.integration
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_of_a_file_can_be_run(tmp_path: Path, programs: Path, kind: Kind, everything: bool) -> None:
    """One after another, from an empty folder to a deployment; every one succeeds."""
    extras = full(kind) if everything else PLAIN
    (tmp_path / "work").mkdir()
    variables = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "ROOT": str(tmp_path / "root"),
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        ["sh", "-eu"], input=script(kind, extras), text=True, cwd=tmp_path / "work", env=variables,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calls = tmp_path / "calls"
    assert (calls.read_text().splitlines() if calls.exists() else []) == EXPECTED[kind]
    if kind == "systemd":
        installed = {str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*.*")}
        files = (tmp_path / "work" / "deploy").glob("*.*")
        texts = "".join(path.read_text() for path in [*files, tmp_path / "work" / "deploy" / "broker.env"])
        named = set(re.findall(r"[=:]/(etc/[\w./-]+)", texts))
        named |= set(re.findall(r" /(etc/[\w./-]+)", public_files(kind)["nats-server.service"]))
        named = {path for path in named if path.startswith(("etc/scheduler/", "etc/nats-server/"))}
        assert {path for path in installed if path.startswith("etc/") and "systemd" not in path} == named
        assert_readable(tmp_path / "root" / "etc")


def assert_readable(etc: Path) -> None:
    """Check that secrets are for root alone, and that the broker can read what it opens itself."""
    names = {"scheduler/scheduler.nk", "scheduler/scheduler.env", "nats-server/broker.env"}
    for path in [*(etc / name for name in names), *etc.rglob("*.key"), *etc.rglob("*.token")]:
        assert not path.stat().st_mode & 0o077
    for path in [etc / "nats-server/nats-server.conf", *etc.rglob("*.pem")]:
        assert path.stat().st_mode & 0o004
    assert "DynamicUser=yes" in (etc / "systemd/system/nats-server.service").read_text()


def test_only_our_commands_and_those_of_the_deployment_are_called() -> None:
    """So that a line cannot be run here that does more than it seems."""
    known = {"cd", "set", ".", "install", "nats-server", "scheduler", "sh", *NOTED}
    for kind in KINDS:
        lines = script(kind, full(kind)).splitlines()
        assert {*script(kind).splitlines()[1:]} < {*lines, ""}
        assert {line.split()[0] for line in lines} <= known
        assert {line.split()[1] for line in lines if line.startswith("sh ")} == {"certificates.sh"}
        assert {line.split()[1] for line in lines if line.startswith("scheduler ")} <= set(NAMES)
    assert shutil.which("install")
