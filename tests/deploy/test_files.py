"""What `scheduler deploy` prints and writes: each file is right by its own rules, and they fit together."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from support.brokers import binary
from support.deployments import CUSTOM, EVERY, FULL, USERS, certify, compose, each, manifests, workload, write

from scheduler import __version__
from scheduler.deploy.broker import variable_of
from scheduler.deploy.files import (
    GRAFANA_PASSWORD,
    KINDS,
    PAGE_TOKEN,
    PLAIN,
    Extras,
    Kind,
    all_files,
    public_files,
)
from scheduler.deploy.keys import Keys, make_keys
from scheduler.deploy.templates import monitoring_file
from scheduler.permissions import shipped

KUBERNETES = "1.31"
"""Version whose schemas are asked; what it has, later ones have."""


# Each by its own rules.


@pytest.mark.parametrize(("old", "new", "wrong"), [("", "", False), ("read_only:", "readonly:", True)])
def test_compose_is_valid_by_its_schema(tmp_path: Path, old: str, new: str, wrong: bool) -> None:
    """And the schema finds a key that there is not."""
    path = tmp_path / "compose.yaml"
    for extras in [PLAIN] if wrong else EVERY:
        path.write_text(public_files("compose", extras)["compose.yaml"].replace(old, new))
        assert_schema(path, wrong=wrong)


def assert_schema(path: Path, *, wrong: bool) -> None:
    """Check whether a file is valid to Compose."""
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert bool(done.returncode) is wrong, done.stdout + done.stderr


@each
def test_a_manifest_is_valid_by_its_schema(extras: Extras) -> None:
    """Strictly: it has no field that Kubernetes does not know."""
    for manifest in manifests(extras):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(
                {**manifest, "spec": {**manifest["spec"], "x": 1}}, KUBERNETES, strict=True
            )


@each
def test_kustomize_puts_it_all_together(tmp_path: Path, keys: Keys, extras: Extras) -> None:
    """With the configuration and the secrets, to whose names it adds a hash, also where they are used."""
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl")
    folder = write(tmp_path / "deploy", "kubernetes", keys, extras)
    if extras.tls:
        certify(folder)
    # As somebody does who has the operator of Prometheus.
    path = folder / "kustomization.yaml"
    path.write_text(path.read_text().replace("resources:\n", "resources:\n  - monitoring/operator.yaml\n"))
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    built = {f"{one['kind']}/{one['metadata']['name']}": one for one in yaml.safe_load_all(done.stdout)}
    secrets = {
        name.rpartition("-")[0]: {*one["data"]} for name, one in built.items() if one["kind"] == "Secret"
    }
    of_tls = {"Secret/scheduler-tls", "Secret/nats-tls"} if extras.tls else set()
    assert secrets.keys() - of_tls == {"Secret/nats-broker", "Secret/scheduler-keys"}
    assert secrets["Secret/scheduler-keys"] == {"scheduler.nk", *([PAGE_TOKEN] if extras.page else [])}
    for kind in of_tls:
        name = "broker" if "nats" in kind else "scheduler"
        assert secrets[kind] == {"ca.pem", f"{name}.pem", f"{name}.key"}
    for owner in ("StatefulSet/scheduler", "StatefulSet/nats"):
        for volume in built[owner]["spec"]["template"]["spec"]["volumes"]:
            if "secret" in volume:
                assert f"Secret/{volume['secret']['secretName']}" in built
    board = built["ConfigMap/scheduler-dashboard"]
    assert board["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert board["data"] == {"scheduler.json": monitoring_file("dashboard").read_text()}
    assert len(built) == len(manifests(extras)) + len(secrets) + len(CUSTOM) + 2


@pytest.mark.parametrize(
    ("old", "new", "complaint"), [("", "", ""), ("TimeoutStopSec", "TimeoutStop", "Unknown key")]
)
def test_units_are_valid_to_systemd(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    """It says nothing about them; and does about a key that there is not."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    files = {name: text for name, text in public_files("systemd", FULL).items() if name.endswith(".service")}
    assert set(files) == {"scheduler.service", "nats-server.service"}
    for name, text in files.items():
        program = tmp_path / name.removesuffix(".service")
        program.symlink_to(sys.executable)
        (tmp_path / name).write_text(
            text.replace(f"/usr/local/bin/{program.name}", str(program)).replace(old, new)
        )
    verify = ["systemd-analyze", "verify", *(str(tmp_path / name) for name in files)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    said = "\n".join(
        line for line in done.stderr.splitlines() if str(tmp_path) in line or ".service:" in line
    )
    assert complaint in said
    assert bool(said) is bool(complaint)


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tls", [False, True])
def test_the_configuration_of_a_broker_is_valid_to_it(
    tmp_path: Path, keys: Keys, kind: Kind, tls: bool
) -> None:
    """With its environment and certificates; and not without any one of the variables."""
    folder = write(tmp_path / "deploy", kind, keys, Extras(tls=tls))
    lines = (folder / "broker.env").read_text().splitlines()
    known = {"NATS_SERVER_NAME": "n1", **dict(line.split("=", 1) for line in lines)}
    assert ("NATS_TLS_CA" in known) is tls
    if tls:
        place = certify(folder)
        # In a container and on a host they are elsewhere, and a unit names the key itself.
        for variable, name in {"CERTIFICATE": "broker.pem", "CA": "ca.pem", "KEY": "broker.key"}.items():
            assert known.get(f"NATS_TLS_{variable}", name).endswith(name)
            known[f"NATS_TLS_{variable}"] = str(place / name)
    assert check_broker(folder, known) == 0
    for name in known:
        assert check_broker(folder, {key: value for key, value in known.items() if key != name}) == 1, name


def check_broker(folder: Path, variables: dict[str, str]) -> int:
    check = [binary(), "--config", "nats-server.conf", "-t"]
    return subprocess.run(
        check, cwd=folder, env=variables, capture_output=True, timeout=30, check=False
    ).returncode


# The brokers' configuration and the keys.


def test_a_broker_allows_what_the_shipped_permissions_allow() -> None:
    """The same, to the letter: only how users log in differs."""
    text = public_files("nats")["nats-server.conf"]
    logins = re.compile(r"(?m)^ *(?:user: \w+\n *password: \$\w+|nkey: \$\w+)\n")
    _, _, ours = text.partition("\n}\n")
    _, _, theirs = shipped().partition('listen: "0.0.0.0:4222"\n')
    assert logins.sub("", ours) == logins.sub("", theirs)
    assert re.findall(r"nkey: \$(\w+)", text) == [variable_of(name) for name in USERS]
    assert "_PASSWORD" not in text.replace("$NATS_ROUTE_PASSWORD", "")
    [secured] = re.findall(r"(?s)\nmax_payload.*", public_files("nats", FULL)["nats-server.conf"])
    assert text.endswith(secured)


def test_every_user_has_a_key_of_its_own(keys: Keys) -> None:
    """Seeds go to the users, and public keys alone to the brokers."""
    assert [*keys.seeds] == USERS
    public = [keys.public(name) for name in USERS]
    assert len({*public, *keys.seeds.values()}) == 2 * len(USERS)
    assert all(key.startswith("U") for key in public)
    assert all(seed.startswith("SU") for seed in keys.seeds.values())
    environment = all_files("nats", keys, 1000, 1000)["broker.env"]
    assert all(
        f"NATS_{name.upper()}_NKEY={key}\n" in environment.text
        for name, key in zip(USERS, public, strict=True)
    )
    assert not [seed for seed in keys.seeds.values() if seed in environment.text]


def test_keys_that_are_there_are_kept(keys: Keys) -> None:
    """Only what is missing is drawn, and something else each time."""
    kept = {name: text for name, text in keys.files.items() if name != "operator.nk"}
    again = make_keys(kept.get)
    assert again.route == keys.route
    assert {name for name in USERS if again.seeds[name] != keys.seeds[name]} == {"operator"}


def test_secrets_are_not_shown(keys: Keys) -> None:
    """Neither by what holds them, nor in a file that others may read."""
    secret = [keys.route, *keys.seeds.values(), *keys.words.values()]
    assert not [one for one in secret if one in repr(keys)]
    for kind in KINDS:
        for name, file in all_files(kind, keys, 1000, 1000, FULL).items():
            assert file.secret or not [one for one in secret if one in file.text], name
            assert not [one for one in secret if one in repr(file)], name
            assert "PRIVATE KEY" not in file.text, name


# How they fit together.


@pytest.mark.parametrize("kind", KINDS)
def test_three_brokers_know_each_other_and_schedulers_know_them(keys: Keys, kind: Kind) -> None:
    """The hosts of routes are those that schedulers connect to."""
    files = all_files(kind, keys, 1000, 1000)
    routes = re.findall(r"NATS_ROUTE_\d=nats-route://route:\w+@([\w.-]+):6222", files["broker.env"].text)
    assert len(set(routes)) == 3
    others = "".join(file.text for name, file in files.items() if name != "nats-server.conf")
    for servers in re.findall(r"NATS_URL(?:=|: |\n +value: )(nats://\S+)", others):
        assert re.sub("nats://", "", servers).split(",") == [f"{host}:4222" for host in routes]
    assert others.count("NATS_URL") == (0 if kind == "nats" else 1)
    assert len(re.findall(r'SCHEDULER_REPLICAS(?:=|: "|, value: ")3', others)) == others.count("NATS_URL")


def test_compose_has_three_of_each() -> None:
    """Each with its name, its probe, its bounds, and no right that it does not need."""
    services = compose()["services"]
    usual = {name: service for name, service in services.items() if "profiles" not in service}
    assert [*usual] == [f"{name}-{number}" for name in ("nats", "scheduler") for number in range(3)]
    assert {name for name in services if name not in usual} == {"prometheus", "grafana"}
    for service in services.values():
        assert service["healthcheck"]["test"]
        assert service["deploy"]["resources"]["limits"]["memory"]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        # What can be reached from outside is for this machine alone.
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert not re.fullmatch(r"[^:]*(:latest)?", service["image"])
    for name, service in usual.items():
        variable = "NATS_SERVER_NAME" if name.startswith("nats") else "SCHEDULER_INSTANCE"
        assert service["environment"][variable] == name
    for number in range(3):
        broker = services[f"nats-{number}"]
        assert f"nats-{number}:/data" in broker["volumes"]
        # Each can be reached: connectors go on when any one of them is gone.
        assert broker["ports"] == [f"127.0.0.1:{4222 + number}:4222"]
        assert f"nats://127.0.0.1:{4222 + number}" in public_files("compose")["compose.yaml"]


@pytest.mark.parametrize("name", ["nats", "scheduler"])
def test_kubernetes_has_three_of_each(name: str) -> None:
    """Each with a probe, a disruption budget of one, bounds, and no right that it does not need."""
    spec = workload(name)
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert spec["replicas"] == 3
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["readinessProbe"]
    assert {"cpu", "memory"} == set(container["resources"]["requests"])
    [budget] = (
        one["spec"]
        for one in manifests()
        if one["kind"] == "PodDisruptionBudget" and one["metadata"]["name"] == name
    )
    assert budget == {"maxUnavailable": 1, "selector": spec["selector"]}
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]


def test_all_wait_longer_than_the_grace() -> None:
    """Otherwise they kill a scheduler that awaits what is in flight."""
    for service in compose()["services"].values():
        if "--grace" in service.get("command", ()):
            assert seconds(service["stop_grace_period"]) >= grace(service["command"]) + 15
    pod = workload("scheduler")["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= grace(pod["containers"][0]["args"]) + 15
    unit = public_files("systemd")["scheduler.service"]
    [start], [stop] = (
        re.findall(r"(?m)^ExecStart=(.*)$", unit),
        re.findall(r"(?m)^TimeoutStopSec=(\d+)$", unit),
    )
    assert int(stop) >= grace(start.split()) + 15


def grace(words: list[str]) -> int:
    return seconds(words[words.index("--grace") + 1])


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_the_version_is_that_of_the_package(keys: Keys) -> None:
    """Images are named by it."""
    assert (
        f"SCHEDULER_IMAGE=localhost/scheduler:{__version__}\n"
        in all_files("compose", keys, 1, 1)[".env"].text
    )
    image = workload("scheduler")["template"]["spec"]["containers"][0]["image"]
    assert image == f"registry.example.com/scheduler:{__version__}"


@pytest.mark.parametrize(
    ("user", "expected"), [(1000, (1000, 100, None)), (0, (10001, 10001, (10001, 10001)))]
)
def test_containers_run_as_the_one_who_may_read_the_key(keys: Keys, user: int, expected: Any) -> None:
    """That is who wrote it; never root, who gives it to another user."""
    files = all_files("compose", keys, user, 100, FULL)
    number, group, owner = expected
    assert f"SCHEDULER_UID={number}\nSCHEDULER_GID={group}\n" in files[".env"].text
    for name in ("scheduler.nk", PAGE_TOKEN, GRAFANA_PASSWORD):
        assert files[f"keys/{name}"].owner == owner
    assert files["keys/operator.nk"].owner is None
