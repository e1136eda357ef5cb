"""Ways to log in to the broker, each with the service as a process."""

import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from support.certificates import write_certificates

from integration.builds import build, component
from integration.conftest import World
from integration.harness import CANARY, Scheduler, Submitter

pytestmark = pytest.mark.integration

PASSWORD = f"{CANARY}-password"
USER = {"authorization": {"user": "me", "password": PASSWORD}}
TOKEN = {"authorization": {"token": PASSWORD}}


@pytest.mark.parametrize(
    ("config", "arguments", "variables"),
    [
        (USER, ["--user=me", f"--password={PASSWORD}"], {}),
        (USER, [], {"NATS_URI": f"nats://me:{PASSWORD}@HOST"}),
        (TOKEN, [], {"SCHEDULER_TOKEN": PASSWORD}),
        (TOKEN, [], {"NATS_URL": f"nats://{PASSWORD}@HOST"}),
    ],
    ids=["flags", "uri", "token variable", "token url"],
)
def test_a_secret(start_world: Any, config: Any, arguments: list[str], variables: dict[str, str]) -> None:
    """The service logs in and serves; the secret is not in its log, nor in a report."""
    world: World = start_world(config)
    host = f"127.0.0.1:{world.server.port}"
    scheduler = world.scheduler(
        *arguments,
        env={
            **({} if "NATS_URI" in variables else {"NATS_URL": f"nats://{host}"}),
            **{name: value.replace("HOST", host) for name, value in variables.items()},
        },
    )
    world.server.user_info = f"me:{PASSWORD}" if config is USER else PASSWORD
    world.submitter().run(build(component("note::1", action="none")))
    scheduler.end()


def test_a_wrong_password_ends_the_start(start_world: Any) -> None:
    """One line says what was refused, without the secret; exit code 1."""
    world: World = start_world(USER)
    scheduler = world.scheduler("--user=me", f"--password={CANARY}-wrong", ready=False)
    assert scheduler.wait() == 1
    assert "refuses our credentials" in list(scheduler.err)[-1]
    assert CANARY not in scheduler.errors
    assert "Traceback" not in scheduler.errors


def test_an_nkey(start_world: Any, tmp_path: Path) -> None:
    """The seed is in a file."""
    seed = "SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU"
    public = "UCK5N7N66OBOINFXAYC2ACJQYFSOD4VYNU6APEJTAVFZB2SVHLKGEW7L"
    path = tmp_path / "seed"
    path.write_text(seed)
    world: World = start_world({"authorization": {"users": [{"nkey": public}]}})
    scheduler = world.scheduler(f"--nkey={path}")
    submitter = Submitter(world.client(nkeys_seed=str(path)))
    submitter.run(build(component("note::1", action="none")))
    assert seed not in scheduler.errors
    scheduler.end()


@pytest.mark.parametrize("first", [False, True])
def test_tls_with_certificates_of_both_sides(start_world: Any, tmp_path: Path, *, first: bool) -> None:
    """By flags; a service without a certificate is not let in, and says why it waits."""
    folder = write_certificates(tmp_path)
    tls = {"cert_file": "server.pem", "key_file": "server.key", "ca_file": "ca.pem"}
    settings = {key: str(folder / name) for key, name in tls.items()}
    world: World = start_world({"tls": {**settings, "verify": True, "handshake_first": first}})
    ours = ["--tls-first"] if first else []
    trusted = [f"--tls-ca={folder / 'ca.pem'}", *ours]
    keys = [f"--tls-certificate={folder / 'client.pem'}", f"--tls-key={folder / 'client.key'}"]
    scheduler = world.scheduler(*trusted, *keys)
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "client.pem", folder / "client.key")
    client = world.client(tls=context, tls_handshake_first=first)
    Submitter(client).run(build(component("note::1", action="none")))
    scheduler.end()
    stranger = world.scheduler(*trusted, ready=False)
    assert stranger.err.first(lambda line: "certificate" in line or "TLS" in line)
    assert "Traceback" not in stranger.errors


def test_an_untrusted_broker_ends_the_start(start_world: Any, tmp_path: Path) -> None:
    """Its certificate is of an authority that we don't know: exit code 1 and a line that says so."""
    folder = write_certificates(tmp_path)
    world: World = start_world(
        {"tls": {"cert_file": str(folder / "server.pem"), "key_file": str(folder / "server.key")}}
    )
    scheduler = world.scheduler(ready=False, env={"NATS_URL": f"tls://127.0.0.1:{world.server.port}"})
    assert scheduler.wait() == 1
    assert "TLS failed" in list(scheduler.err)[-1]
    assert "Traceback" not in scheduler.errors


def test_what_the_broker_forbids_is_said(start_world: Any) -> None:
    """A request that may not be published fails its component at once; the next build is not disturbed."""
    user = {"user": "me", "password": PASSWORD, "permissions": {"publish": {"deny": ["vpc.delete.*"]}}}
    world: World = start_world({"authorization": {"users": [user]}})
    world.server.user_info = f"me:{PASSWORD}"
    scheduler, connectors, submitter = world.scheduler(), world.connectors(), world.submitter()
    document = build(component("vpc::1", action="delete"))
    submitter.accepted(document)
    assert "does not permit us to publish on vpc.delete.aws" in submitter.failed(document)["error"]
    submitter.run(build(component("vpc::1")))
    assert connectors.ids() == ["vpc::1"]
    scheduler.end()


def test_a_context_with_a_password_and_tls(start_world: Any, tmp_path: Path) -> None:
    """The service and a command log in as the context of the ``nats`` command says; no secret is shown."""
    folder = write_certificates(tmp_path)
    tls = {"cert_file": "server.pem", "key_file": "server.key", "ca_file": "ca.pem"}
    files = {key: str(folder / name) for key, name in tls.items()}
    world: World = start_world({**USER, "tls": {**files, "verify": True}})
    contexts = tmp_path / "nats" / "context"
    contexts.mkdir(parents=True)
    members = {"user": "me", "password": PASSWORD, "ca": "$KEYS/ca.pem", "cert": "$KEYS/client.pem"}
    members |= {"url": f"127.0.0.1:{world.server.port}", "key": "$KEYS/client.key", "socks_proxy": ""}
    (contexts / "prod.json").write_text(json.dumps(members))
    env = {"XDG_CONFIG_HOME": str(tmp_path), "KEYS": str(folder), "NATS_URL": ""}
    scheduler = world.scheduler("--context=prod", env=env)
    listing = world.started(Scheduler("list", "--json", env={**env, "NATS_CONTEXT": "prod"}))
    assert listing.wait() == 0, listing.errors
    stranger = world.started(Scheduler("list", env={**env, "NATS_CONTEXT": "prdo"}))
    assert stranger.wait() == 2
    assert "did you mean 'prod'?" in stranger.errors
    scheduler.end()
    assert CANARY not in scheduler.errors + listing.errors + stranger.errors
