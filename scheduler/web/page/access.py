"""Judges who asks and what they may do: by a token, a session in its place, or a user whom a proxy names.

A session is signed by a key that is made of the token: it outlives a restart, is good at every instance with
the same token, and ends with it. Nothing is kept of it here.
"""

import hmac
import ipaddress
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

import msgspec
from attrs import frozen
from starlette.datastructures import Headers

from scheduler.config.addresses import Address
from scheduler.config.web import WebSettings, read_networks
from scheduler.errors import Refused
from scheduler.text import printable
from scheduler.web.hosts import Hosts

LIFE: Final = 12 * 3_600.0
"""Seconds for which a session is good."""
CSRF_HEADER: Final = "x-scheduler-csrf"
LONGEST_NAME: Final = 100
"""Characters of a user's name."""
_LONGEST_COOKIE: Final = 1_024
_BY_A_PROXY: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "via", "x-real-ip")
"""Headers of requests that somebody has passed on."""
_LOCAL: Final = Hosts()


@frozen
class Visitor:
    """One who may read."""

    user: str = ""
    """Name; empty where nobody told one."""
    vouched: bool = False
    """Whether a proxy says so."""
    session: str = ""
    """What an order has to prove that it knows, before it is hashed; empty where no browser asks."""
    known: bool = False
    """Whether it had the token, or came by a trusted proxy; else it is just on this machine."""


class _Session(msgspec.Struct, frozen=True):
    """Content of a cookie."""

    until: float
    id: str
    user: str = ""


class Access:
    """Judges requests.

    Args:
        settings: settings of the page.
        address: address that it is served at.
        hosts: hosts that a request may name.
        clock: returns the seconds since 1970.
    """

    def __init__(
        self, settings: WebSettings, address: Address, hosts: Hosts, clock: Callable[[], float] = time.time
    ) -> None:
        self._tokens = [token.encode() for token in settings.tokens()]
        self._keys = [_signed(token, b"scheduler page session") for token in self._tokens]
        self._proxies = read_networks(settings.trusted_proxies)
        self._header = settings.user_header.lower()
        # Whoever set up a login wants it: a proxy on this machine may pass the world on without a mark.
        self._open = address.loopback and not self._tokens and not self._header
        self._hosts = hosts
        self._clock = clock
        # Without a token no session needs to outlive this process.
        self._csrf_key = self._keys[0] if self._keys else secrets.token_bytes(32)
        self.takes_orders = settings.orders
        """Whether there are orders at all."""
        self.cookie = f"scheduler_{sha256(self._csrf_key).hexdigest()[:8]}" if self._keys else ""
        """Name of the cookie, unlike that of another scheduler of this host; empty without a token."""

    @property
    def has_login(self) -> bool:
        """Whether one can log in with a token."""
        return bool(self._tokens)

    def visitor(self, headers: Headers, cookies: Mapping[str, str], client: str) -> Visitor | None:
        """Return who asks; None where they may not even read.

        Args:
            headers: headers of the request.
            cookies: its cookies.
            client: IP address that it comes from.
        """
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return Visitor(known=True) if self._is_token(given.strip()) else None
        session = self._session(cookies.get(self.cookie, "")) if self.cookie else None
        if session is not None:
            return Visitor(session.user, session=f"cookie {session.id}", known=True)
        users = headers.getlist(self._header) if self._header else []
        if len(users) == 1 and users[0].strip() and self.is_proxy(client):
            user = _name(_as_sent(users[0]))
            return Visitor(user, vouched=True, session=f"proxy {user}", known=True)
        return Visitor() if self._is_local(headers, client) else None

    def _is_local(self, headers: Headers, client: str) -> bool:
        if not self._open or any(name in headers for name in _BY_A_PROXY):
            return False
        host = headers.get("host", "")
        return _is_loopback(client) and _LOCAL.allows(host) and _is_loopback(_host_of(host))

    def is_proxy(self, client: str) -> bool:
        """Return whether a request comes from a proxy that is trusted."""
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._proxies if network.version == address.version)

    # ---- sessions

    def log_in(self, token: str, user: str) -> str | None:
        """Return the cookie for one who has the token; None for another.

        Args:
            token: what they say that it is.
            user: their name, as they say.
        """
        if not self._is_token(token):
            return None
        session = _Session(self._clock() + LIFE, secrets.token_hex(8), _name(user))
        data = msgspec.json.encode(session)
        return f"{_text(data)}.{_text(_signed(self._keys[0], data))}"

    def _is_token(self, given: str) -> bool:
        # All are compared, each in the same time.
        return any([hmac.compare_digest(token, given.encode()) for token in self._tokens])  # noqa: C419

    def _session(self, cookie: str) -> _Session | None:
        if not cookie or len(cookie) > _LONGEST_COOKIE:
            return None
        told, _, signature = cookie.partition(".")
        try:
            data, signed = urlsafe_b64decode(told), urlsafe_b64decode(signature)
        except ValueError:
            return None
        if not any([hmac.compare_digest(_signed(key, data), signed) for key in self._keys]):  # noqa: C419
            return None
        session = msgspec.json.decode(data, type=_Session)
        return session if session.until > self._clock() else None

    # ---- orders

    def may_order(self, visitor: Visitor) -> bool:
        """Return whether orders are taken from somebody."""
        return self.takes_orders and visitor.known

    def csrf(self, visitor: Visitor) -> str:
        """Return what an order of a browser has to have in its header; empty where it needs nothing."""
        if not visitor.session:
            return ""
        return _signed(self._csrf_key, b"csrf " + visitor.session.encode()).hex()

    def check_order(self, visitor: Visitor, headers: Headers, client: str) -> None:
        """Check that an order is meant.

        Raises:
            Refused: ``forbidden``: none are taken, or it may come from another page.
        """
        if not self.takes_orders:
            raise Refused("forbidden", "no orders are taken here: start the scheduler with --web-orders")
        if not visitor.known:
            raise Refused("forbidden", "an order needs the token: log in")
        self.check_origin(headers, client, needed=bool(visitor.session))
        if visitor.session and not hmac.compare_digest(
            self.csrf(visitor).encode(), headers.get(CSRF_HEADER, "").encode()
        ):
            raise Refused("forbidden", f"{CSRF_HEADER}: not what this page was given: load it again")

    def check_origin(self, headers: Headers, client: str, *, needed: bool = True) -> None:
        """Check that a request comes from a page of ours.

        Args:
            headers: headers of the request.
            client: IP address that it comes from.
            needed: whether it has to say where it comes from, as browsers do.

        Raises:
            Refused: ``forbidden``: it does not.
        """
        origins = headers.getlist("origin")
        if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            raise Refused("forbidden", "this comes from another page")
        if not origins and not needed:
            return
        if len(origins) != 1 or not self._is_ours(origins[0], headers, client):
            raise Refused("forbidden", "this comes from another page, or does not say from which (Origin)")

    def _is_ours(self, origin: str, headers: Headers, client: str) -> bool:
        try:
            parts = urlsplit(origin)
            host, name, usual = parts.netloc.lower(), parts.hostname or "", parts.port is None
        except ValueError:
            return False
        if parts.scheme not in {"http", "https"} or not host:
            return False
        if host == headers.get("host", "").lower() or (usual and self._hosts.named(name)):
            return True
        # A proxy may ask by another name than the browser does.
        return self.is_proxy(client) and host == headers.get("x-forwarded-host", "").lower()


def _signed(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode()


def _name(text: str) -> str:
    return printable(text.strip(), LONGEST_NAME)


def _as_sent(value: str) -> str:
    """Return the value of a header as UTF-8, which proxies send names in; as it is where it is none."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _host_of(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().removesuffix(".")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
