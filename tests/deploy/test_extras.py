"""Monitoring, certificates and the page of a deployment: they fit what is deployed."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.deployments import CUSTOM, FULL, USERS, certify, compose, each, workload, write

from scheduler.deploy.files import (
    GRAFANA_PASSWORD,
    PAGE_TOKEN,
    Extras,
    Kind,
    all_files,
    public_files,
    words_of,
)
from scheduler.deploy.keys import Keys
from scheduler.deploy.templates import monitoring_file


def bound(service: dict[str, Any]) -> list[tuple[str, str]]:
    """The files that a service mounts, and their places in its container."""
    found = []
    for volume in service.get("volumes", ()):
        if volume.startswith("./"):
            source, target, mode = volume.split(":")
            assert mode == "ro"
            found.append((source.removeprefix("./"), target))
    return found


def test_compose_has_only_what_podman_compose_knows() -> None:
    """It passes over `configs` without a word: a broker would then run as its image is configured."""
    for service in [compose(FULL), *compose(FULL)["services"].values()]:
        assert "configs" not in service
    for name in ("nats-0", "nats-1", "nats-2"):
        broker = compose(FULL)["services"][name]
        [(source, target)] = bound(broker)
        assert (source, broker["command"]) == ("nats-server.conf", ["--config", target])


@each
def test_all_that_compose_mounts_is_written(tmp_path: Path, keys: Keys, extras: Extras) -> None:
    """Each file, and nothing else; and each service has only what is declared."""
    words = {name: keys.words[name] for name in words_of("compose", extras)}
    files = {*all_files("compose", Keys(keys.seeds, keys.route, words), 1, 1, extras)}
    if extras.tls:
        folder = write(tmp_path / "deploy", "compose", keys, extras)
        files |= {f"certificates/{path.name}" for path in certify(folder).iterdir()}
    found = compose(extras)
    declared = {one["file"] for one in found["secrets"].values()}
    given = {name for service in found["services"].values() for name in service.get("secrets", ())}
    assert given == found["secrets"].keys()
    mounted = {source for service in found["services"].values() for source, _ in bound(service)}
    assert declared | mounted <= files
    assert {name for name in files if name.startswith("monitoring/")} <= mounted
    settings = found["services"]["scheduler-1"]["environment"]
    given = {f"/run/secrets/{name}" for name in found["services"]["scheduler-1"]["secrets"]}
    assert {value for value in settings.values() if value.startswith("/run/")} == given


@pytest.mark.parametrize("kind", ["compose", "systemd"])
def test_prometheus_scrapes_every_scheduler_under_the_name_that_rules_expect(kind: Kind) -> None:
    """At its port; and asked by that name a scheduler answers."""
    files = public_files(kind)
    [job] = yaml.safe_load(files["monitoring/prometheus.yml"])["scrape_configs"]
    assert job["job_name"] == "scheduler"
    [static] = job["static_configs"]
    hosts = [target.partition(":")[0] for target in static["targets"]]
    settings = files["compose.yaml"] if kind == "compose" else files["scheduler.env"]
    [served] = set(re.findall(r"SCHEDULER_METRICS(?:=|: \")0\.0\.0\.0:(\d+)", settings))
    assert {target.partition(":")[2] for target in static["targets"]} == {served}
    assert len(hosts) == 3
    assert f"{','.join(hosts)}\n" in settings[settings.index("SCHEDULER_HTTP_HOSTS") :]
    assert files["monitoring/alerts.yml"] == monitoring_file("alerts").read_text()
    assert files["monitoring/dashboard.json"] == monitoring_file("dashboard").read_text()


def test_grafana_finds_its_dashboard_and_data() -> None:
    """Where the files that provision it say; and nobody logs in by a known password."""
    files, grafana = public_files("compose"), compose()["services"]["grafana"]
    places = {Path(source).stem: place for source, place in bound(grafana)}
    [provider] = yaml.safe_load(files["monitoring/dashboards.yaml"])["providers"]
    assert str(Path(places["dashboard"]).parent) == provider["options"]["path"]
    assert places["datasource"].startswith("/etc/grafana/provisioning/datasources/")
    assert places["dashboards"].startswith("/etc/grafana/provisioning/dashboards/")
    [source] = yaml.safe_load(files["monitoring/datasource.yaml"])["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == f"/run/secrets/{GRAFANA_PASSWORD}"


def test_pods_are_found_by_prometheus() -> None:
    """By annotations, and by the operator's kinds: at the port that is named so, as the job of our rules."""
    template = workload("scheduler")["template"]
    [container] = template["spec"]["containers"]
    [port] = container["ports"]
    assert template["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port["containerPort"]),
        "prometheus.io/path": "/metrics",
    }
    monitor, rules = yaml.safe_load_all(public_files("kubernetes")["monitoring/operator.yaml"])
    assert (monitor["kind"], rules["kind"]) == CUSTOM
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert template["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "scheduler"
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == port["name"]
    assert rules["spec"] == yaml.safe_load(monitoring_file("alerts").read_text())


@pytest.mark.parametrize("kind", ["compose", "systemd"])
def test_the_configuration_of_prometheus_is_valid_to_it(tmp_path: Path, keys: Keys, kind: Kind) -> None:
    """With the rules that it names."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("THE CONFIGURATION OF PROMETHEUS IS NOT CHECKED: there is no promtool")
    folder = write(tmp_path / "deploy", kind, keys)
    check = [promtool, "check", "config", "monitoring/prometheus.yml"]
    done = subprocess.run(check, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS: 12 rules found" in done.stdout


def test_the_configuration_of_nginx_is_valid_to_it(tmp_path: Path, keys: Keys) -> None:
    """Within one that is ours, with a certificate that was made now."""
    nginx = shutil.which("nginx")
    if nginx is None:
        pytest.skip("THE CONFIGURATION OF NGINX IS NOT CHECKED: there is no nginx")
    place = certify(write(tmp_path / "deploy", "nats", keys, FULL))
    text = public_files("systemd", FULL)["page.nginx.conf"]
    for end in ("pem", "key"):
        text = text.replace(f"/etc/nginx/scheduler.{end}", str(place / f"broker.{end}"))
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{name}_temp_path {tmp_path}/{name};" for name in temporary)
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; {paths}\n"
        + text.replace("[::]:443 ", f"unix:{tmp_path}/a ").replace(" 443 ", f" unix:{tmp_path}/b ")
        + "}\n"
    )
    check = [nginx, "-t", "-c", str(tmp_path / "nginx.conf")]
    done = subprocess.run(check, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_the_page_is_served_with_a_token_alone() -> None:
    """In each kind that has schedulers; from outside by a proxy with TLS."""
    for kind in ("compose", "systemd", "kubernetes"):
        with_page, without = (
            "".join(public_files(kind, Extras(page=page)).values()) for page in (True, False)
        )
        assert "SCHEDULER_WEB" not in without
        assert with_page.count("SCHEDULER_WEB_TOKEN_FILE") == 1
        assert "SCHEDULER_WEB_ORDERS" not in with_page
        assert words_of(kind, Extras(page=True))[0] == PAGE_TOKEN
        assert PAGE_TOKEN not in words_of(kind)
    service, ingress = yaml.safe_load_all(public_files("kubernetes", FULL)["page.yaml"])
    [port] = service["spec"]["ports"]
    [container] = next(yaml.safe_load_all(public_files("kubernetes", FULL)["schedulers.yaml"]))["spec"][
        "template"
    ]["spec"]["containers"]
    assert {one["name"]: one["containerPort"] for one in container["ports"]}[port["targetPort"]] == 8080
    [rule], [tls] = ingress["spec"]["rules"], ingress["spec"]["tls"]
    assert tls["hosts"] == [rule["host"]]
    assert {"name": "SCHEDULER_HTTP_HOSTS", "value": rule["host"]} in container["env"]
    [path] = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": service["metadata"]["name"], "port": {"name": port["name"]}}
    nginx = public_files("systemd", FULL)["page.nginx.conf"]
    environment = public_files("systemd", FULL)["scheduler.env"]
    [name] = re.findall(r"server_name (\S+);", nginx)
    assert name in re.findall(r"SCHEDULER_HTTP_HOSTS=(\S+)", environment)[0].split(",")
    assert re.findall(r"proxy_pass http://(\S+);", nginx) == re.findall(r"SCHEDULER_WEB=(\S+)", environment)


def test_certificates_are_made_once_and_good(tmp_path: Path, keys: Keys) -> None:
    """By strict rules, each with its usages; those that are there stay, and keys are for nobody else."""
    folder = write(tmp_path / "deploy", "nats", keys, FULL)
    place = certify(folder, "n1", "10.0.0.7", "::1")
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert before.keys() == {f"{name}.{end}" for name in ("ca", "broker", *USERS) for end in ("pem", "key")}
    for path in place.iterdir():
        assert bool(path.stat().st_mode & 0o077) is (path.suffix == ".pem")
    for purpose, names in {"sslserver": ["broker"], "sslclient": ["broker", *USERS]}.items():
        for name in names:
            verify = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem"]
            subprocess.run([*verify, f"{name}.pem"], cwd=place, capture_output=True, timeout=20, check=True)
    shown = ["openssl", "x509", "-in", "broker.pem", "-noout", "-ext", "subjectAltName"]
    text = subprocess.run(shown, cwd=place, capture_output=True, text=True, timeout=20, check=True).stdout
    assert text.splitlines()[1].strip() == (
        "DNS:localhost, IP Address:127.0.0.1, DNS:n1, IP Address:10.0.0.7, IP Address:0:0:0:0:0:0:0:1"
    )
    (place / "operator.pem").unlink()
    certify(folder)
    after = {path.name: path.read_bytes() for path in place.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"operator.pem", "operator.key"}


def test_certificates_need_the_names_of_the_brokers(tmp_path: Path, keys: Keys) -> None:
    """Without them nothing is made; and what OpenSSL complains of is shown."""
    folder = write(tmp_path / "deploy", "nats", keys, FULL)
    run = ["sh", "certificates.sh"]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "name the brokers: certificates.sh n1 n2 n3" in done.stderr
    assert not (folder / "certificates").exists()
    variables = {**os.environ, "DAYS": "many"}
    done = subprocess.run(
        [*run, "n1"], cwd=folder, env=variables, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode != 0
    assert "many" in done.stderr
    assert not list((folder / "certificates").glob("draft.*"))
