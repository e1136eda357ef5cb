"""Options of a connection: the broker's servers, and the credentials."""

import re
import ssl
from functools import cached_property
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from attrs import Attribute, Factory, field, frozen

from scheduler.bus.subjects import encode_subject
from scheduler.errors import InvalidSettings, InvalidSubject
from scheduler.setting import Section, invalid, setting

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


def parse_servers(text: str) -> tuple[str, ...]:
    """Comma-separated broker addresses, ``nats://`` being added where a scheme is missing.

    Raises:
        InvalidSettings: one of them is no address, or there is none.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise invalid("nats_url", text, "names no server, such as nats://127.0.0.1:4222")
    urls = tuple(part if "://" in part else f"nats://{part}" for part in parts)
    for part, url in zip(parts, urls, strict=True):
        if not _is_server(url):
            # What cannot be read as an address may be a part of somebody's password.
            shown = None if "@" in text else part
            raise invalid("nats_url", shown, f"is not a broker's address: {'|'.join(_SCHEMES)}://host:port")
    return urls


def _is_server(url: str) -> bool:
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        _split(url)
    except InvalidSettings:
        return False
    return True


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

    servers: tuple[str, ...] = setting(
        Factory(lambda: (DEFAULT_SERVER,)),
        "Address of the broker; several, separated by commas, are tried in turn.",
        Section.BROKER,
        read=parse_servers,
        otherwise=f"{DEFAULT_SERVER}, or an embedded one",
        name="nats_url",
        validator=_checked_servers,
        repr=lambda urls: repr([*map(safe_url, urls)]),
    )
    user: str | None = setting(None, "Log in with this name and --password.", Section.BROKER, kw_only=True)
    password: str | None = setting(
        None,
        "Its password; safer in the variable, as others can see flags.",
        Section.BROKER,
        repr=False,
        kw_only=True,
    )
    token: str | None = setting(
        None, "Log in with a token; safer in the variable.", Section.BROKER, repr=False, kw_only=True
    )
    credentials: Path | None = setting(
        None, "Log in with a .creds file.", Section.BROKER, validator=_existing_file, kw_only=True
    )
    """File with a JWT and its seed."""
    nkey: Path | None = setting(
        None,
        "Log in with the nkey seed in this file.",
        Section.BROKER,
        validator=_existing_file,
        kw_only=True,
    )
    inbox_prefix: str = setting(
        DEFAULT_INBOX,
        "Subject prefix for replies; must be unique to this user.",
        Section.BROKER,
        validator=_inbox_prefix,
        kw_only=True,
    )
    """Prefix of inboxes: answers to requests come in on ``<inbox_prefix>.<random>.>``."""
    tls_ca: Path | None = setting(
        None,
        "Certificates to trust, not the system's.",
        Section.BROKER,
        more="`tls://` in the URL asks for TLS.",
        validator=_existing_file,
        kw_only=True,
    )
    tls_certificate: Path | None = setting(
        None, "Certificate to present to the broker.", Section.BROKER, validator=_existing_file, kw_only=True
    )
    """Client certificate chain, for a server that asks for one."""
    tls_key: Path | None = setting(
        None, "Key of that certificate.", Section.BROKER, validator=_existing_file, kw_only=True
    )
    tls_hostname: str | None = setting(
        None, "Name to expect in the broker's certificate.", Section.BROKER, kw_only=True
    )
    """Name to expect if it is not the host of the URL."""
    tls_first: bool = setting(
        False,
        "Start TLS before the broker's greeting.",
        Section.BROKER,
        kw_only=True,
    )
    """Whether TLS starts before the server has said anything (its ``handshake_first``)."""
    name: str = field(default="scheduler", kw_only=True)
    """Name of the connection in the server's monitoring."""
    chosen: bool = field(default=True, kw_only=True)
    """Whether somebody named the broker or a login; if not, a command may take an embedded broker."""
    origin: str = field(default="", kw_only=True)
    """Words about why it is this broker, for messages; empty if somebody named it."""
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
