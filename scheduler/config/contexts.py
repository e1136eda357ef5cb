"""Contexts of the ``nats`` command: named files with a broker's address and the credentials.

Their form and place are those of ADR-21 of the NATS project. A context is only used where it is named: the
one that is selected, too, has to be asked for (`SELECTED`), or a selection made for another tool would decide
where a build runs. What the scheduler cannot do (a proxy, another JetStream domain) is an error, since the
connection would lead elsewhere; members that have nothing to do with the connection are ignored.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from attrs import field, frozen

from scheduler.bus.options import parse_servers
from scheduler.definition.nearly import nearly
from scheduler.errors import InvalidSettings
from scheduler.setting import Section, setting, spelled, wrong
from scheduler.text import printable

SELECTED: Final = "."
"""Name for the context that ``nats context select`` has selected."""
_LARGEST: Final = 1024 * 1024
"""Bytes of a file that is read."""
_LISTED: Final = 20
"""Contexts that a message lists."""
_MEMBERS: Final = {
    "servers": "url",
    "user": "user",
    "password": "password",
    "token": "token",
    "credentials": "creds",
    "nkey": "nkey",
    "tls_ca": "ca",
    "tls_certificate": "cert",
    "tls_key": "key",
    "inbox_prefix": "inbox_prefix",
    "tls_first": "tls_first",
}
"""Members of a context by the attribute of `BusOptions` that they fill."""
_LOGIN: Final = frozenset({"user", "password", "token", "credentials", "nkey"})
_FILES: Final = frozenset({"credentials", "nkey", "tls_ca", "tls_certificate", "tls_key"})
_SECRETS: Final = frozenset({"password", "token"})
_TO_A_FILE: Final = "write both to a .creds file, and name that file as creds"
_WINDOWS: Final = "export the certificates to files, and name these as cert, key and ca"
_CURES: Final = {
    "socks_proxy": "the scheduler connects without a proxy; use a context whose broker is reached directly",
    "jetstream_domain": "the scheduler uses the JetStream of the broker that it connects to; use a context"
    " without it, whose url is a broker of that domain",
    "jetstream_api_prefix": "the scheduler uses the JetStream of its own account; use a context without"
    " it, of the account that has the JetStream",
    "nsc": "write the credentials to a file with `nsc generate creds`, and name that file as creds",
    "user_jwt": _TO_A_FILE,
    "user_seed": _TO_A_FILE,
    "windows_cert_store": _WINDOWS,
    "windows_cert_match": _WINDOWS,
    "windows_cert_match_by": _WINDOWS,
    "windows_ca_certs_match": _WINDOWS,
}
"""What to do about members that would change the connection in a way that the scheduler does not support."""
_REFERENCE: Final = re.compile(r"(op|nsc|env|data|file):", re.IGNORECASE)
"""Begin of a value that the ``nats`` command looks up elsewhere."""
_FILE_URL: Final = "file://"
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_USER_INFO: Final = re.compile(r"(?<=://)[^/]*@")


@frozen
class ContextOption:
    """Setting that names a context."""

    context: str | None = setting(
        None,
        "Connect as this context of the nats command says; '.': the selected one.",
        Section.BROKER,
        more="See [Contexts](#contexts).",
    )


class _File(msgspec.Struct):
    """Members of the file that are about the connection; each may be empty or missing."""

    description: str | None = None
    url: str | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    creds: str | None = None
    nkey: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    inbox_prefix: str | None = None
    tls_first: bool | None = None
    socks_proxy: str | None = None
    jetstream_domain: str | None = None
    jetstream_api_prefix: str | None = None
    nsc: str | None = None
    user_jwt: str | None = None
    user_seed: str | None = None
    windows_cert_store: str | None = None
    windows_cert_match: str | None = None
    windows_cert_match_by: str | None = None
    windows_ca_certs_match: list[str] | None = None


_DECODER: Final = msgspec.json.Decoder(_File)


@frozen
class Context:
    """A context as it was read."""

    path: Path
    values: Mapping[str, Any] = field(repr=False)
    """Options by the attribute of `BusOptions`; those that the context leaves open are missing."""

    def under(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of this context with those that are given elsewhere on top.

        A way to log in takes the place of the context's, but a user and a password complete each other.

        Args:
            given: the options from flags and variables, by the attribute of `BusOptions`.
        """
        kept = dict(self.values)
        login = _LOGIN & given.keys()
        inside_url = any("@" in url for url in given.get("servers", ()))
        if login or inside_url:
            same = {"user", "password"} if login <= {"user", "password"} and not inside_url else set()
            kept = {name: value for name, value in kept.items() if name not in _LOGIN - same}
        if login and "servers" in kept:
            kept["servers"] = tuple(_USER_INFO.sub("", url) for url in kept["servers"])
        if "tls_certificate" in given:
            kept.pop("tls_key", None)
        return {**kept, **given}

    def place(self, attribute: str) -> str:
        """Return where the file has the value for an attribute of `BusOptions`, for a person."""
        return _place(self.path, _MEMBERS[attribute])


def read_context(name: str) -> Context:
    """Read a context.

    Args:
        name: its name, or `SELECTED`.

    Raises:
        InvalidSettings: there is none of this name, its file cannot be read, or the scheduler cannot connect
            as it says.
    """
    if name == SELECTED:
        name = _selected()
    if not _is_name(name):
        raise wrong("context", f"'{printable(name, 100)}' is not a context's name, such as prod")
    path = _folder() / "context" / f"{name}.json"
    content = _content(path)
    if content is None:
        raise wrong("context", _unknown(name))
    try:
        file = _DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise wrong("context", f"{_shown(path)}: {error}; correct it with `nats context edit`") from None
    for member, cure in _CURES.items():
        if getattr(file, member):
            raise InvalidSettings(f"{_place(path, member)} is not supported: {cure}")
    found = {attribute: getattr(file, member) for attribute, member in _MEMBERS.items()}
    return Context(path, {name: _option(path, name, value) for name, value in found.items() if value})


def known_contexts() -> list[str]:
    """Return the names of the contexts that exist, sorted; none where the folder cannot be read."""
    try:
        files = [file for file in (_folder() / "context").iterdir() if file.suffix == ".json"]
    except (OSError, InvalidSettings):
        return []
    return sorted(file.stem for file in files if _is_name(file.stem))


def description_of(name: str) -> str:
    """Return the description of a known context, on one line; nothing where it cannot be read."""
    try:
        content = _content(_folder() / "context" / f"{name}.json")
        return printable(_DECODER.decode(content or b"{}").description or "")
    except (InvalidSettings, msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _folder() -> Path:
    """Return the folder of the ``nats`` command: the same on every system."""
    folder = os.environ.get("XDG_CONFIG_HOME")
    try:
        return (Path(folder) if folder else Path.home() / ".config") / "nats"
    except RuntimeError:
        raise wrong("context", "there is no home directory; set XDG_CONFIG_HOME") from None


def _is_name(name: str) -> bool:
    # Newer versions of the `nats` command take fewer names; files of older ones have a dot.
    return bool(name) and name.isprintable() and ".." not in name and not {"/", "\\"} & set(name)


def _selected() -> str:
    path = _folder() / "context.txt"
    name = (_content(path) or b"").decode(errors="replace").strip()
    if not name:
        raise wrong("context", f"no context is selected in {_shown(path)}; `nats context select` selects one")
    return name


def _content(path: Path) -> bytes | None:
    """Return the content of a file; None if it is not there."""
    try:
        if path.exists() and not path.is_file():
            raise wrong("context", f"{_shown(path)} is not a file")
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise wrong("context", f"cannot read {_shown(path)}: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise wrong("context", f"{_shown(path)} is larger than {_LARGEST:,} bytes")
    return content


def _unknown(name: str) -> str:
    names = known_contexts()
    problem = f"there is no context '{printable(name, 100)}' in {_shown(_folder() / 'context')}"
    if not names:
        return f"{problem}, nor any other; `nats context add` adds one"
    meant = nearly(name, names)
    cure = f"did you mean '{meant}'? " if meant else ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{problem}; {cure}there are: {', '.join(names[:_LISTED])}{more}"


def _option(path: Path, attribute: str, value: Any) -> Any:
    """Return the value of an attribute of `BusOptions` from that of its member."""
    place = _place(path, _MEMBERS[attribute])
    if attribute == "servers":
        try:
            return parse_servers(value)
        except InvalidSettings as error:
            problem = str(error).removeprefix(spelled("nats_url"))
            raise InvalidSettings(place + problem) from None
    if attribute in _FILES:
        return _path(place, value)
    if attribute in _SECRETS and (found := _REFERENCE.match(value)):
        raise InvalidSettings(f"{place}: {found[0]} is not looked up; give the value as {spelled(attribute)}")
    return value


def _path(place: str, text: str) -> Path:
    """Return a path with ``~`` and variables expanded."""
    found = _REFERENCE.match(text)
    if found and not text.startswith(_FILE_URL):
        raise InvalidSettings(f"{place}: {found[0]} is not looked up; write it to a file, and name that file")

    def value(variable: re.Match[str]) -> str:
        name = variable[1] or variable[2]
        if name not in os.environ:
            raise InvalidSettings(f"{place}: the variable {name} is not set")
        return os.environ[name]

    try:
        return Path(_VARIABLE.sub(value, text.removeprefix(_FILE_URL))).expanduser()
    except RuntimeError:
        raise InvalidSettings(f"{place}: there is no such home directory; write the whole path") from None


def _place(path: Path, member: str) -> str:
    return f"{member} in {_shown(path)}"


def _shown(path: Path) -> str:
    return printable(str(path))
