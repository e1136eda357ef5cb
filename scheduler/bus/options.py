"""Options of a connection: the broker's servers, and the credentials."""

import re
import ssl
from functools import cached_property
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from attrs import Attribute, field, frozen

from scheduler.bus.subjects import encode_subject
from scheduler.errors import InvalidSettings, InvalidSubject

DEFAULT_SERVER = "nats://127.0.0.1:4222"
DEFAULT_INBOX = "_INBOX.scheduler"
MAX_MESSAGES = 200_000
"""Most messages that wait to leave."""
MAX_BYTES = 512 * 1024 * 1024
"""Most bytes of messages that wait to leave."""
_SCHEMES = ("nats", "tls")


def _split(url: str) -> SplitResult:
    """Take a server's URL apart; a missing scheme means ``nats://``.

    Raises:
        InvalidSettings: it is not the URL of a server.
    """
    shown = safe_url(url)
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        port = parts.port
    except ValueError:
        raise InvalidSettings(f"{shown!r} is not a server's URL: expected nats://host:4222") from None
    if parts.scheme not in _SCHEMES:
        raise InvalidSettings(f"{shown!r} has the scheme {parts.scheme!r}: expected nats:// or tls://")
    if not parts.hostname or port == 0 or any(c.isspace() or c < " " for c in url):
        raise InvalidSettings(f"{shown!r} is not a server's URL: expected nats://host:4222")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidSettings(f"{shown!r} has something after the port: expected nats://host:4222")
    return parts


def safe_url(url: str) -> str:
    """Return a server's URL with everything before ``@`` masked, fit for logs and messages."""
    before, at, host = url.rpartition("@")
    scheme = re.match(r"\w+://", before)
    return f"{scheme[0] if scheme else ''}***@{host}" if at else url


def _checked_servers(_: object, __: "Attribute[tuple[str, ...]]", servers: tuple[str, ...]) -> None:
    if not servers:
        raise InvalidSettings("no server is given: expected at least one, such as nats://127.0.0.1:4222")
    for url in servers:
        _split(url)


def _existing_file(_: object, attribute: "Attribute[Path | None]", path: Path | None) -> None:
    if path is None:
        return
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InvalidSettings(f"{attribute.name}: cannot read {str(path)!r}: {error.strerror}") from None


def _inbox_prefix(_: object, __: "Attribute[str]", prefix: str) -> None:
    try:
        encode_subject(prefix)
    except InvalidSubject as error:
        raise InvalidSettings(f"inbox_prefix: {error}") from None


@frozen
class BusOptions:
    """Options of a connection, frozen and checked as a whole.

    Raises:
        InvalidSettings: a URL is invalid, a file cannot be read, or the ways to log in contradict each other.
    """

    servers: tuple[str, ...] = field(
        default=(DEFAULT_SERVER,), validator=_checked_servers, repr=lambda urls: repr([*map(safe_url, urls)])
    )
    user: str | None = field(default=None, kw_only=True)
    password: str | None = field(default=None, repr=False, kw_only=True)
    token: str | None = field(default=None, repr=False, kw_only=True)
    credentials: Path | None = field(default=None, validator=_existing_file, kw_only=True)
    """File with a JWT and its seed (``.creds``)."""
    nkey: Path | None = field(default=None, validator=_existing_file, kw_only=True)
    """File with an nkey seed."""
    tls_ca: Path | None = field(default=None, validator=_existing_file, kw_only=True)
    """Certificates to trust instead of the system's."""
    tls_certificate: Path | None = field(default=None, validator=_existing_file, kw_only=True)
    """Client certificate chain, for a server that asks for one."""
    tls_key: Path | None = field(default=None, validator=_existing_file, kw_only=True)
    tls_hostname: str | None = field(default=None, kw_only=True)
    """Name to expect in the server's certificate, if it is not the host of the URL."""
    tls_first: bool = field(default=False, kw_only=True)
    """Whether TLS starts before the server has said anything (its ``handshake_first``)."""
    name: str = field(default="scheduler", kw_only=True)
    """Name of the connection in the server's monitoring."""
    inbox_prefix: str = field(default=DEFAULT_INBOX, validator=_inbox_prefix, kw_only=True)
    """Prefix of inboxes: answers to requests come in on ``<inbox_prefix>.<random>.>``."""
    max_queued_messages: int = field(default=MAX_MESSAGES, kw_only=True)
    max_queued_bytes: int = field(default=MAX_BYTES, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.password is not None and self.user is None:
            raise InvalidSettings("password is given without user")
        if self.user is not None and self.password is None:
            raise InvalidSettings("user is given without password")
        ways = [way for way in ("user", "token", "credentials", "nkey") if getattr(self, way) is not None]
        if any("@" in url for url in self.servers):
            ways.append("user information in a server's URL")
        if len(ways) > 1:
            raise InvalidSettings(f"more than one way to log in is given: {' and '.join(ways)}; choose one")
        if self.tls_key is not None and self.tls_certificate is None:
            raise InvalidSettings("tls_key is given without tls_certificate")
        if self.tls:
            _ = self.ssl_context

    @property
    def tls(self) -> bool:
        """Whether an unencrypted connection is out of the question."""
        return (
            self.tls_first
            or any(_split(url).scheme == "tls" for url in self.servers)
            or any((self.tls_ca, self.tls_certificate, self.tls_hostname))
        )

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """Context for TLS; made once, because reading the system's certificates takes 20 ms.

        Raises:
            InvalidSettings: a certificate or key file cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
        except (OSError, ValueError) as error:
            raise InvalidSettings(
                f"tls_ca: {str(self.tls_ca)!r} holds no usable certificates: {error}"
            ) from None
        if self.tls_certificate is not None:
            try:
                # For a key with a passphrase OpenSSL would otherwise ask on the terminal: a service would
                # hang.
                context.load_cert_chain(self.tls_certificate, self.tls_key, password="")
            except (OSError, ValueError) as error:
                raise InvalidSettings(
                    f"tls_certificate: {str(self.tls_certificate)!r} cannot be used with its key: {error}"
                ) from None
        return context
