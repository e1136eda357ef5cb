"""Deployments of tests: what `scheduler deploy` prints, read or written into a folder."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scheduler.deploy.files import PLAIN, Extras, Kind, all_files, public_files
from scheduler.deploy.keys import Keys
from scheduler.permissions import users

USERS = [user.name for user in users()]
FULL = Extras(tls=True, page=True)
EVERY = [Extras(tls=tls, page=page) for tls in (False, True) for page in (False, True)]
CUSTOM = ("PodMonitor", "PrometheusRule")
"""Kinds that Kubernetes has from the operator of Prometheus, so that it has no schema of them."""


def named(extras: Extras) -> str:
    """What a test's name says of them."""
    return extras.flags or "plain"


each = pytest.mark.parametrize("extras", EVERY, ids=named)


def write(folder: Path, kind: Kind, keys: Keys, extras: Extras = PLAIN) -> Path:
    """Write all files of a kind."""
    for name, file in all_files(kind, keys, 1000, 1000, extras).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(file.text)
    return folder


def certify(folder: Path, *hosts: str) -> Path:
    """Run the script that makes certificates; returns their folder."""
    run = ["sh", "certificates.sh", *(hosts or ("n1", "n2", "n3"))]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder / "certificates"


def compose(extras: Extras = PLAIN) -> dict[str, Any]:
    """The file for Docker Compose, with its anchors followed."""
    found: dict[str, Any] = yaml.safe_load(public_files("compose", extras)["compose.yaml"])
    return found


def manifests(extras: Extras = PLAIN) -> list[dict[str, Any]]:
    """Manifests for Kubernetes, in the order of the files."""
    files = public_files("kubernetes", extras)
    names = ["brokers.yaml", "schedulers.yaml", *(["page.yaml"] if extras.page else [])]
    return [one for name in names for one in yaml.safe_load_all(files[name])]


def workload(name: str) -> dict[str, Any]:
    """The StatefulSet of this name."""
    [found] = (one for one in manifests() if one["kind"] == "StatefulSet" and one["metadata"]["name"] == name)
    spec: dict[str, Any] = found["spec"]
    return spec
