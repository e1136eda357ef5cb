"""Connection options: what is refused, and that no secret shows."""

from pathlib import Path
from typing import Any

import pytest
from support.certificates import write_certificates

from scheduler.bus.options import BusOptions, parse_servers, safe_url
from scheduler.errors import InvalidSettings


@pytest.mark.parametrize(
    "url",
    [
        "nats://127.0.0.1:4222",
        "tls://nats.example.com",
        "example.com:4222",
        "localhost",
        "nats://[::1]:4222",
        "nats://h:1/",
    ],
)
def test_good_urls(url: str) -> None:
    """A scheme and a port may be left out."""
    assert BusOptions((url,)).servers == (url,)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://h:4222", "scheme 'http'"),
        ("ws://h:4222", "scheme 'ws'"),
        ("", "not a server's URL"),
        ("nats://", "not a server's URL"),
        ("nats://h:port", "not a server's URL"),
        ("nats://h:99999", "not a server's URL"),
        ("nats://h:0", "not a server's URL"),
        ("nats://h h:1", "not a server's URL"),
        ("nats://h:1/path", "something after the port"),
        ("nats://h:1?x=y", "something after the port"),
        ("nats://a:1,nats://b:1", "not a server's URL"),
    ],
)
def test_bad_urls(url: str, words: str) -> None:
    """The message names the URL."""
    with pytest.raises(InvalidSettings, match=words):
        BusOptions((url,))


def test_no_server() -> None:
    """At least one is needed."""
    with pytest.raises(InvalidSettings, match="no server"):
        BusOptions(())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"user": "u"}, "user is given without password"),
        ({"password": "p"}, "password is given without user"),
        ({"user": "u", "password": "p", "token": "t"}, "user and token"),
        ({"token": "t", "servers": ("nats://x@h",)}, "token and user information in a server's URL"),
        (
            {"credentials": Path("/nowhere/x.creds")},
            "credentials: cannot read '/nowhere/x.creds': No such file",
        ),
        ({"nkey": Path("/")}, "nkey: cannot read '/': Is a directory"),
        ({"tls_ca": Path("/nowhere/ca.pem")}, "tls_ca: cannot read"),
        ({"tls_key": Path(__file__)}, "tls_key is given without tls_certificate"),
        ({"tls_ca": Path(__file__)}, "tls_ca: .* holds no usable certificates"),
        ({"tls_certificate": Path(__file__)}, "tls_certificate: .* cannot be used"),
        ({"inbox_prefix": "a b"}, "inbox_prefix"),
        ({"inbox_prefix": "a.>"}, "inbox_prefix"),
    ],
)
def test_contradictions_and_missing_files(settings: dict[str, Any], words: str) -> None:
    """Each is named."""
    with pytest.raises(InvalidSettings, match=words):
        BusOptions(**settings)


def test_a_certificate_and_a_key_that_do_not_match(tmp_path: Path) -> None:
    """Found before any connection is made."""
    write_certificates(tmp_path)
    with pytest.raises(InvalidSettings, match="cannot be used with its key"):
        BusOptions(tls_certificate=tmp_path / "client.pem", tls_key=tmp_path / "server.key")
    assert BusOptions(tls_certificate=tmp_path / "client.pem", tls_key=tmp_path / "client.key").tls


def test_no_secret_shows() -> None:
    """Neither in the representation nor in a message."""
    options = BusOptions(("nats://joe:hunter2@h:4222",))
    assert "hunter2" not in repr(options)
    assert "joe" not in repr(options)
    shown = repr(BusOptions(user="u", password="hunter2")) + repr(BusOptions(token="hunter2"))
    assert "hunter2" not in shown
    with pytest.raises(InvalidSettings) as caught:
        BusOptions(("http://joe:hunter2@h:4222",))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://h:1", "nats://h:1"),
        ("nats://u:p@h:1", "nats://***@h:1"),
        ("nats://token@h:1", "nats://***@h:1"),
        ("nats://u:p@ss@h:1", "nats://***@h:1"),
        ("u:p@h:1", "***@h:1"),
        ("nats://u:p://x@h", "nats://***@h"),
        ("u:p://x@h", "***@h"),
    ],
)
def test_safe_url(url: str, shown: str) -> None:
    """Whatever stands before the last at-sign is masked."""
    assert safe_url(url) == shown


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nats://a:4222", ("nats://a:4222",)),
        ("a", ("nats://a",)),
        ("a:1, tls://b:2 ,", ("nats://a:1", "tls://b:2")),
        ("nats://u:p@h:4222/", ("nats://u:p@h:4222/",)),
        ("nats://[::1]:4222", ("nats://[::1]:4222",)),
    ],
)
def test_servers_may_be_several_and_without_a_scheme(text: str, servers: tuple[str, ...]) -> None:
    """Addresses are separated by commas, and nats:// is what a bare one means."""
    assert parse_servers(text) == servers


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        "http://h",
        "nats://",
        "nats://h:0",
        "nats://h:99999",
        "nats://h:x",
        "h/path",
        "nats://h?q",
        "nats://a b",
    ],
)
def test_what_is_no_server_is_refused(text: str) -> None:
    """An address that no broker can have is refused, naming flag and both variables."""
    with pytest.raises(InvalidSettings, match=r"^--nats-url \(NATS_URL, NATS_URI\): "):
        parse_servers(text)


@pytest.mark.parametrize(
    "text", ["nats://joe:hunter2@h:0", "joe:hunter2@h:x", "nats://joe:hun,ter2@h", "nats://joe:a/hunter2@h:x"]
)
def test_a_password_in_a_wrong_address_is_not_shown(text: str) -> None:
    """What is wrong with an address is said without its user and password."""
    with pytest.raises(InvalidSettings) as caught:
        parse_servers(text)
    assert not any(part in str(caught.value) for part in ("joe", "hun", "ter2"))
