"""The files of each kind of deployment, as they are printed and written."""

from collections.abc import Mapping
from importlib import resources
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from attrs import frozen

from scheduler import __version__
from scheduler.deploy.broker import broker_configuration, variable_of
from scheduler.deploy.keys import Keys

Kind: TypeAlias = Literal["compose", "systemd", "kubernetes", "nats"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
KEYS: Final = "keys"
"""Folder of the keys, beside the other files."""
IMAGE: Final = f"localhost/scheduler:{__version__}"
"""Image of the schedulers where none is named."""
CONFIGURATION: Final = "nats-server.conf"
_OF_SCHEDULERS: Final = "scheduler.nk"
_UNPRIVILEGED: Final = 10001
"""User and group of schedulers in containers that root has made."""


class Brokers(NamedTuple):
    """Place of the brokers in a deployment."""

    hosts: tuple[str, ...]
    store: str
    """Folder of JetStream."""
    name: str = ""
    """Name of the server in the environment; empty where it comes from elsewhere."""


@frozen
class DeployedFile:
    """A file of a deployment."""

    text: str
    secret: bool = False
    """Whether nobody else may read it."""
    owner: tuple[int, int] | None = None
    """User and group that it is given to, where root writes it; None: nobody."""


_HOSTS: Final = ("n1", "n2", "n3")
_BROKERS: Final[Mapping[Kind, Brokers]] = {
    "compose": Brokers(("nats-0", "nats-1", "nats-2"), "/data"),
    "systemd": Brokers(_HOSTS, "/var/lib/nats-server"),
    "kubernetes": Brokers(("nats-0.nats", "nats-1.nats", "nats-2.nats"), "/data"),
    "nats": Brokers(_HOSTS, "/var/lib/nats-server", _HOSTS[0]),
}
_SHIPPED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "compose": ("compose.yaml",),
    "systemd": ("scheduler.service", "scheduler.env", "nats-server.service"),
    "kubernetes": ("kustomization.yaml", "schedulers.yaml", "brokers.yaml"),
    "nats": (),
}


def shipped_file(name: str) -> str:
    """Return the text of a file that ships with the package."""
    return resources.files("scheduler.deploy").joinpath("shipped", name).read_text(encoding="utf-8")


def public_files(kind: Kind) -> dict[str, str]:
    """Return the files without secrets, by name."""
    return {
        **{name: shipped_file(name) for name in _SHIPPED[kind]},
        CONFIGURATION: broker_configuration(shipped_file("broker-head.conf")),
    }


def all_files(kind: Kind, keys: Keys, user: int, group: int) -> dict[str, DeployedFile]:
    """Return all files, by path.

    Args:
        kind: kind of the deployment.
        keys: keys of its users.
        user: user that writes the files: in containers, schedulers run as the one who may read the keys.
        group: its group.
    """
    found = {name: DeployedFile(text) for name, text in public_files(kind).items()}
    found["broker.env"] = DeployedFile(_broker_environment(_BROKERS[kind], keys), secret=True)
    if kind == "compose":
        own = (user, group) if user else (_UNPRIVILEGED, _UNPRIVILEGED)
        found[".env"] = DeployedFile(
            f"SCHEDULER_IMAGE={IMAGE}\nSCHEDULER_UID={own[0]}\nSCHEDULER_GID={own[1]}\n"
        )
    # The folder may well be one of a repository.
    found[".gitignore"] = DeployedFile(f"/{KEYS}/\n/broker.env\n")
    for name, text in keys.files.items():
        # A container that is not root's has to read the one key that it is given.
        given = kind == "compose" and not user and name == _OF_SCHEDULERS
        owner = (_UNPRIVILEGED, _UNPRIVILEGED) if given else None
        found[f"{KEYS}/{name}"] = DeployedFile(text, secret=True, owner=owner)
    return found


def _broker_environment(brokers: Brokers, keys: Keys) -> str:
    routes = {
        f"NATS_ROUTE_{number}": f"nats-route://route:{keys.route}@{host}:6222"
        for number, host in enumerate(brokers.hosts)
    }
    public = {variable_of(user): keys.public(user) for user in keys.seeds}
    values = {"NATS_STORE_DIR": brokers.store, "NATS_ROUTE_PASSWORD": keys.route, **routes, **public}
    if brokers.name:
        values = {"NATS_SERVER_NAME": brokers.name, **values}
    return "".join(f"{name}={value}\n" for name, value in values.items())
