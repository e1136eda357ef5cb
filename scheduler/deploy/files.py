"""The files of each kind of deployment, as they are printed and written."""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from attrs import field, frozen

from scheduler import __version__
from scheduler.deploy.broker import broker_configuration, variable_of
from scheduler.deploy.keys import Keys
from scheduler.deploy.templates import monitoring_file, render
from scheduler.permissions import users

Kind: TypeAlias = Literal["compose", "systemd", "kubernetes", "nats"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
KEYS: Final = "keys"
"""Folder of the keys, beside the other files."""
CERTIFICATES: Final = "certificates"
"""Folder that `certificates.sh` makes."""
IMAGE: Final = f"localhost/scheduler:{__version__}"
"""Image of the schedulers where none is named."""
CONFIGURATION: Final = "nats-server.conf"
PAGE_TOKEN: Final = "page.token"  # noqa: S105 - the name of a file
"""File of the token for the page, among the keys."""
GRAFANA_PASSWORD: Final = "grafana.password"  # noqa: S105 - the name of a file
PRINTED_BY: Final = {
    "monitoring/dashboard.json": "scheduler monitoring dashboard",
    "monitoring/alerts.yml": "scheduler monitoring alerts",
}
"""Files that other commands print, by name."""
_UNPRIVILEGED: Final = 10001
"""User and group of schedulers in containers that root has made."""


@frozen
class Extras:
    """Additions to the brokers and schedulers of a deployment."""

    tls: bool = False
    """Whether brokers and clients know each other by certificates."""
    page: bool = False
    """Whether the schedulers serve the page."""

    @property
    def flags(self) -> str:
        """Flags that ask for it, with a space behind each."""
        return f"{'--tls ' if self.tls else ''}{'--page ' if self.page else ''}"


PLAIN: Final = Extras()


class Brokers(NamedTuple):
    """Place of the brokers in a deployment."""

    hosts: tuple[str, ...]
    store: str
    """Folder of JetStream."""
    certificates: str
    """Folder of the certificate and of the authority's, as a broker sees it."""
    key: str
    """Folder of the certificate's key; empty where its path comes from elsewhere."""
    name: str = ""
    """Name of the server in the environment; empty where it comes from elsewhere."""


@frozen
class DeployedFile:
    """A file of a deployment."""

    text: str = field(repr=False)
    secret: bool = False
    """Whether nobody else may read it."""
    owner: tuple[int, int] | None = None
    """User and group that it is given to, where root writes it; None: nobody."""


_HOSTS: Final = ("n1", "n2", "n3")
_ON_HOSTS: Final = "/var/lib/nats-server"
_BROKERS: Final[Mapping[Kind, Brokers]] = {
    "compose": Brokers(("nats-0", "nats-1", "nats-2"), "/data", "/run/secrets", "/run/secrets"),
    "systemd": Brokers(_HOSTS, _ON_HOSTS, "/etc/nats-server", ""),
    "kubernetes": Brokers(("nats-0.nats", "nats-1.nats", "nats-2.nats"), "/data", "/run/tls", "/run/tls"),
    "nats": Brokers(_HOSTS, _ON_HOSTS, CERTIFICATES, CERTIFICATES, _HOSTS[0]),
}
_PORT: Final = 9464
"""Port of metrics and health."""
_SCRAPED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "compose": tuple(f"scheduler-{number}:{_PORT}" for number in range(3)),
    "systemd": tuple(f"{host}:{_PORT}" for host in _HOSTS),
    "kubernetes": (),
    "nats": (),
}
"""Addresses at which Prometheus finds the schedulers, where it is told."""
_MONITORING: Final = "monitoring/"
_SHIPPED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "compose": (
        "compose.yaml",
        f"{_MONITORING}prometheus.yml",
        f"{_MONITORING}datasource.yaml",
        f"{_MONITORING}dashboards.yaml",
    ),
    "systemd": ("scheduler.service", "scheduler.env", "nats-server.service", f"{_MONITORING}prometheus.yml"),
    "kubernetes": ("kustomization.yaml", "schedulers.yaml", "brokers.yaml", f"{_MONITORING}operator.yaml"),
    "nats": (),
}
_OF_THE_PAGE: Final[Mapping[Kind, tuple[str, ...]]] = {
    "compose": (),
    "systemd": ("page.nginx.conf",),
    "kubernetes": ("page.yaml",),
    "nats": (),
}
_OF_CONTAINERS: Final = ("scheduler.nk", PAGE_TOKEN, GRAFANA_PASSWORD)
"""Keys that containers read as their own user."""


def words_of(kind: Kind, extras: Extras = PLAIN) -> tuple[str, ...]:
    """Return the names of the files with secret words that a deployment needs, beside the keys of users."""
    page = (PAGE_TOKEN,) if extras.page else ()
    return (*page, GRAFANA_PASSWORD) if kind == "compose" else page


def public_files(kind: Kind, extras: Extras = PLAIN) -> dict[str, str]:
    """Return the files without secrets, by name.

    Args:
        kind: kind of the deployment.
        extras: what it has beside brokers and schedulers; the page needs schedulers.
    """
    values: dict[str, Any] = {
        "kind": kind,
        "tls": extras.tls,
        "page": extras.page,
        "options": extras.flags,
        "hosts": _BROKERS[kind].hosts,
        "schedulers": _SCRAPED[kind],
        "users": [user.name for user in users()],
        "unprivileged": _UNPRIVILEGED,
        "rules": monitoring_file("alerts").read_text(encoding="utf-8").rstrip(),
    }
    names = [*_SHIPPED[kind], *(_OF_THE_PAGE[kind] if extras.page else ())]
    names += ["certificates.sh"] if extras.tls else []
    found = {name: render(name.removeprefix(_MONITORING), **values) for name in names}
    found[CONFIGURATION] = broker_configuration(render("broker-head.conf", **values))
    if kind in ("compose", "systemd"):
        found[f"{_MONITORING}alerts.yml"] = monitoring_file("alerts").read_text(encoding="utf-8")
    if kind != "nats":
        found[f"{_MONITORING}dashboard.json"] = monitoring_file("dashboard").read_text(encoding="utf-8")
    return found


def all_files(
    kind: Kind, keys: Keys, user: int, group: int, extras: Extras = PLAIN
) -> dict[str, DeployedFile]:
    """Return all files, by path.

    Args:
        kind: kind of the deployment.
        keys: keys of its users, with the words that it needs (`words_of`).
        user: user that writes the files: in containers, schedulers run as the one who may read the keys.
        group: its group.
        extras: as for `public_files`.
    """
    found = {name: DeployedFile(text) for name, text in public_files(kind, extras).items()}
    environment = _broker_environment(_BROKERS[kind], keys, tls=extras.tls)
    found["broker.env"] = DeployedFile(environment, secret=True)
    if kind == "compose":
        own = (user, group) if user else (_UNPRIVILEGED, _UNPRIVILEGED)
        found[".env"] = DeployedFile(
            f"SCHEDULER_IMAGE={IMAGE}\nSCHEDULER_UID={own[0]}\nSCHEDULER_GID={own[1]}\n"
        )
    # The folder may well be one of a repository.
    certificates = f"/{CERTIFICATES}/\n" if extras.tls else ""
    found[".gitignore"] = DeployedFile(f"/{KEYS}/\n/broker.env\n{certificates}")
    for name, text in keys.files.items():
        # A container that is not root's has to read the keys that it is given.
        given = kind == "compose" and not user and name in _OF_CONTAINERS
        owner = (_UNPRIVILEGED, _UNPRIVILEGED) if given else None
        found[f"{KEYS}/{name}"] = DeployedFile(text, secret=True, owner=owner)
    return found


def _broker_environment(brokers: Brokers, keys: Keys, *, tls: bool) -> str:
    routes = {
        f"NATS_ROUTE_{number}": f"nats-route://route:{keys.route}@{host}:6222"
        for number, host in enumerate(brokers.hosts)
    }
    public = {variable_of(user): keys.public(user) for user in keys.seeds}
    values = {"NATS_STORE_DIR": brokers.store, "NATS_ROUTE_PASSWORD": keys.route, **routes, **public}
    if brokers.name:
        values = {"NATS_SERVER_NAME": brokers.name, **values}
    if tls:
        values["NATS_TLS_CERTIFICATE"] = f"{brokers.certificates}/broker.pem"
        values["NATS_TLS_CA"] = f"{brokers.certificates}/ca.pem"
    if tls and brokers.key:
        values["NATS_TLS_KEY"] = f"{brokers.key}/broker.key"
    return "".join(f"{name}={value}\n" for name, value in values.items())
