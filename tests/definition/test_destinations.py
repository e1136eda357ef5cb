"""URLs of notifications: which are taken, for which host, and which of them a build may name."""

from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builds import build, change
from support.fakes import encode

from scheduler.definition.destinations import (
    AllowedHosts,
    Destination,
    destinations_of,
    read_destination,
    read_host,
)
from scheduler.definition.validation import read_build
from scheduler.errors import InvalidBuild

ALLOWED = AllowedHosts.of(["hooks.example.com", "chat.example.com:8443", "127.0.0.1:9000", "[::1]:9000"])

REFUSED = (
    "is none of the hosts that builds may notify (--notify-hosts):"
    " 127.0.0.1:9000, [::1]:9000, chat.example.com:8443, hooks.example.com"
)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://hooks.example.com", "hooks.example.com"),
        ("https://HOOKS.Example.com/a/b?c=d,e;f", "hooks.example.com"),
        ("https://hooks.example.com:443/", "hooks.example.com"),
        ("https://joe:p%40ss@hooks.example.com:8443/x", "hooks.example.com:8443"),
        ("http://127.0.0.1/", "127.0.0.1:80"),
        ("https://[2001:DB8::0:1]:9/", "[2001:db8::1]:9"),
    ],
)
def test_a_url_is_of_a_host_and_a_port(url: str, host: str) -> None:
    """In one spelling, so that it can be compared."""
    destination = read_destination(url)
    assert (str(destination), destination.url) == (host, url)
    assert repr(destination) == f"Destination({host})"


@pytest.mark.parametrize(
    "url",
    [
        "", "hooks.example.com", "ftp://hooks.example.com", "HTTPS://hooks.example.com", "https://", "https:///x",
        "https://hooks.example.com/#x", "https://hooks.example.com\\@evil.example", "https://a b/",
        "https://hooks.example.com/\n", "https://hooks.example.com:0/", "https://hooks.example.com:65536/",
        "https://hooks.example.com:x/", "https://[::1", "https://[1.2.3]/", "https://h\u00f6st/", "https://-x-/",
        "https://a@b@hooks.example.com/", "https://hooks.example.com." + "x" * 3_000, "https://x./",
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_no_url(url: str) -> None:
    """The refusal does not repeat it: it may have a secret."""
    with pytest.raises(ValueError, match=r"^(expected a URL such as|has 3,0)") as caught:
        read_destination(url)
    assert "evil" not in str(caught.value)


@given(
    st.text("aA1.:/@\\#?%[]-_ \t\u00e9", max_size=25).map("https://hooks.example.com{}".format)
    | st.text("aA1.:/@\\#?%[]-_ \t\u00e9", max_size=25).map("https://{}hooks.example.com/".format)
)
def test_the_client_sends_to_the_host_that_was_checked(url: str) -> None:
    """What we take for an allowed host is one for the library that connects, too."""
    try:
        destination = read_destination(url)
    except ValueError:
        return
    sent = httpx2.URL(url)
    assert destination.host.name == sent.host
    assert destination.host.port == (sent.port or 443)


@pytest.mark.parametrize(
    "text", ["", "https://x", "x/y", "x:0", "x:99999", "a b", "x:", "*.example.com", "[x]"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    """A pattern is none either: every allowed host is named."""
    with pytest.raises(ValueError, match="is no host"):
        read_host(text)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (None, 0),
        ("https://hooks.example.com/a", 1),
        ([], 0),
        (["https://hooks.example.com/a", "https://chat.example.com:8443/b"], 2),
        (["https://hooks.example.com/a"] * 2, 1),
        (["http://127.0.0.1:9000/a", "http://[::1]:9000/"], 2),
    ],
)
def test_a_build_may_name_allowed_hosts(value: Any, number: int) -> None:
    """One or several, each once; without encryption only on this machine."""
    found, problems = destinations_of(value, ALLOWED)
    assert (len(found), problems) == (number, [])
    assert all(isinstance(one, Destination) for one in found)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (5, "notify: expected a URL, or a list of URLs, got a number"),
        ({"url": "x"}, "notify: expected a URL, or a list of URLs, got an object"),
        (["x", 5], "notify: expected a URL, or a list of URLs, got a list with other things"),
        (["https://hooks.example.com"] * 5, "notify: names 5 URLs, of at most 4"),
        ("x", "notify: expected a URL such as https://hooks.example.com/builds"),
        (
            ["https://hooks.example.com", "https://evil.example/secret"],
            f"notify[1]: 'evil.example:443' {REFUSED}",
        ),
        (
            "https://hooks.example.com:8443/",
            f"notify: 'hooks.example.com:8443' {REFUSED}",
        ),
    ],
)  # fmt: skip
def test_anything_else_is_a_problem_with_its_place_and_the_cure(value: Any, problem: str) -> None:
    """Another port of an allowed host is another host."""
    _, problems = destinations_of(value, ALLOWED)
    assert [str(one) for one in problems] == [problem]


def test_a_host_elsewhere_is_reached_encrypted_or_not_at_all() -> None:
    """Even where its port is allowed."""
    allowed = AllowedHosts.of(["hooks.example.com:80"])
    [problem] = destinations_of("http://hooks.example.com/", allowed)[1]
    assert str(problem) == "notify: it is not encrypted: write https://, as http:// is for this machine alone"


def test_every_mistake_of_a_build_is_told_at_once() -> None:
    """Those of its destinations among the others."""
    data = encode(build(change("a"), change("a"), id="b1", notify=["https://evil.example", "x"]))
    with pytest.raises(InvalidBuild) as caught:
        read_build(data, notify=ALLOWED)
    places = [one.place for one in caught.value.problems]
    assert places[-2:] == ["notify[0]", "notify[1]"]
    assert len(places) == 3


@pytest.mark.parametrize("value", [5, {"a": 1}, "https://evil.example"])
def test_the_field_has_no_meaning_unless_hosts_are_allowed(value: Any) -> None:
    """Builds of others may have one of that name, of whatever shape."""
    data = encode(build(change("a"), id="b1", notify=value))
    assert read_build(data).build.fields["notify"] == value


def test_a_build_that_was_accepted_is_resumed_whatever_is_allowed_now() -> None:
    """A setting that changed must not keep it from its end."""
    data = encode(build(change("a"), id="b1", notify="https://evil.example"))
    assert read_build(data, resumed=True, notify=ALLOWED).build.id == "b1"
