"""Settings of the page: its address, who may see it, and whether it takes orders."""

import ipaddress
import re
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from attrs import frozen

from scheduler.config.addresses import LOCAL, Address, parse_address
from scheduler.setting import Section, invalid, setting, wrong

OFF: Final = "off"
"""Text in the place of the page's address: it is not served, not even with an embedded broker."""
_SHORTEST_TOKEN: Final = 24
"""Fewest characters of a token."""
_LONGEST_FILE: Final = 4_096
"""Most bytes of a file with tokens."""
_MOST_TOKENS: Final = 4
_MOST_PROXIES: Final = 64
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_HEADER: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_TOKEN: Final = re.compile(r"[!-~]+")
_NOT_A_NAME: Final = frozenset(
    {"authorization", "connection", "content-length", "content-type", "cookie", "host", "origin"}
)
"""Headers that say something else, so that their value is no user's name."""

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_page(text: str) -> Address | str | None:
    """Parse the address of the page; ``off`` is that word, and None an empty text.

    Raises:
        InvalidSettings: it is of another form.
    """
    return OFF if text.strip() == OFF else parse_address(text, "web")


def parse_networks(text: str) -> tuple[str, ...]:
    """Parse comma-separated addresses and networks, each once.

    Raises:
        InvalidSettings: one of them is none, or there are too many.
    """
    names = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    read_networks(names)
    return names


def read_networks(names: tuple[str, ...]) -> tuple[Network, ...]:
    """Return the networks of these names.

    Raises:
        InvalidSettings: as `parse_networks`.
    """
    found = []
    for name in names:
        try:
            found.append(ipaddress.ip_network(name))
        except ValueError:
            text = "is no IP address or network, such as 10.0.0.7 or 10.0.0.0/24"
            raise invalid("web_trusted_proxy", name, text) from None
    if len(found) > _MOST_PROXIES:
        raise invalid("web_trusted_proxy", f"{len(found)} networks", f"are more than {_MOST_PROXIES}")
    return tuple(found)


@frozen(kw_only=True)
class WebSettings:
    """Settings of the page.

    Raises:
        InvalidSettings: a value cannot be used, or values do not go together.
    """

    web: Address | str | None = setting(
        None,
        "Serve the page at this [HOST:]PORT; without HOST on this machine only.",
        Section.PAGE,
        read=parse_page,
        otherwise="nowhere",
        more="With --embedded a free port of this machine; 'off': nowhere. See [The page](web.md).",
    )
    prefix: str = setting(
        "",
        "Path that all addresses of the page begin with, behind a proxy: '/scheduler'.",
        Section.PAGE,
        otherwise="none",
        name="web_prefix",
    )
    token: str | None = setting(
        None,
        "Token for the page; safer in the variable, as others can see flags.",
        Section.PAGE,
        name="web_token",
        repr=False,
    )
    token_file: Path | None = setting(
        None,
        "File with that token, or with one on each line while it is replaced.",
        Section.PAGE,
        name="web_token_file",
    )
    user_header: str = setting(
        "",
        "Header in which a proxy names the user who has logged in there: 'X-Remote-User'.",
        Section.PAGE,
        otherwise="none",
        name="web_user_header",
    )
    trusted_proxies: tuple[str, ...] = setting(
        (),
        "Addresses or networks of proxies whose header counts: '10.0.0.7'.",
        Section.PAGE,
        read=parse_networks,
        otherwise="none",
        name="web_trusted_proxy",
    )
    orders: bool = setting(
        False,
        "Take orders on the page: pause, cancel, retry and so on.",
        Section.PAGE,
        name="web_orders",
        more="They need the token, or the header of a proxy.",
    )

    def __attrs_post_init__(self) -> None:
        if self.prefix and not _PREFIX.fullmatch(self.prefix):
            raise invalid("web_prefix", self.prefix, "is no path such as '/scheduler', without an end '/'")
        if self.user_header and not _HEADER.fullmatch(self.user_header):
            raise invalid("web_user_header", self.user_header, "is not the name of a header")
        if self.user_header.lower() in _NOT_A_NAME:
            raise invalid("web_user_header", self.user_header, "is a header that says something else")
        if bool(self.user_header) != bool(read_networks(self.trusted_proxies)):
            raise wrong(
                "web_user_header" if self.user_header else "web_trusted_proxy",
                "--web-user-header and --web-trusted-proxy are needed together:"
                " a header counts from proxies that are named, and from nobody else",
            )
        known = bool(self.tokens() or self.user_header)
        if self.orders and not known:
            raise wrong("web_orders", _NEEDS.format("orders need"))
        if isinstance(self.web, Address) and not self.web.loopback and not known:
            raise wrong(
                "web", f"{self.web} can be reached from other machines: {_NEEDS.format('that needs')}"
            )

    def tokens(self) -> tuple[str, ...]:
        """Return the tokens; several while one is replaced by another.

        Raises:
            InvalidSettings: both are given, or the file cannot be read, or a token is too short.
        """
        if self.token is not None and self.token_file is not None:
            raise wrong("web_token", "is given, and --web-token-file as well; choose one")
        if self.token_file is None and self.token is None:
            return ()
        name, text = "web_token", self.token or ""
        if self.token_file is not None:
            name, text = "web_token_file", _text_of(self.token_file)
        tokens = tuple(text.split())
        if not 0 < len(tokens) <= _MOST_TOKENS:
            raise wrong(name, f"has {len(tokens)} tokens, not 1 to {_MOST_TOKENS}")
        for token in tokens:
            if len(token) < _SHORTEST_TOKEN or not _TOKEN.fullmatch(token):
                text = f"is not {_SHORTEST_TOKEN} characters of ASCII or more: anyone could guess it"
                raise invalid(name, None, text)
        return tokens

    def address(self, *, embedded: bool) -> Address | None:
        """Return where the page is to be served; None where it is not.

        Args:
            embedded: whether there is an embedded broker.
        """
        if isinstance(self.web, Address):
            return self.web
        return Address(LOCAL, 0) if embedded and self.web is None else None


_NEEDS: Final = "{} a token (--web-token-file), or a user from a proxy (--web-user-header)"

DEFAULT_WEB: Final = WebSettings()


def _text_of(file: Path) -> str:
    problem = partial(wrong, "web_token_file")
    try:
        with file.open("rb") as opened:
            data = opened.read(_LONGEST_FILE + 1)
        if len(data) > _LONGEST_FILE:
            raise problem(f"{str(file)!r} has more than {_LONGEST_FILE:,} bytes")
        return data.decode("ascii")
    except OSError as error:
        raise problem(f"cannot read {str(file)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise problem(f"{str(file)!r} is no text in ASCII") from None
