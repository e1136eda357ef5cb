"""The address of the HTTP server, and the names by which it may be asked."""

import pytest

from scheduler.config.addresses import Address, parse_address, parse_http_hosts
from scheduler.errors import InvalidSettings


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", "127.0.0.1:9464"),
        ("0", "127.0.0.1:0"),
        ("localhost:9464", "127.0.0.1:9464"),
        ("0.0.0.0:80", "0.0.0.0:80"),
        (" [::1]:9464 ", "[::1]:9464"),
        ("[::]:9464", "[::]:9464"),
    ],
)
def test_an_address_is_a_port_or_a_host_and_a_port(text: str, address: str) -> None:
    """A port alone is of this machine alone."""
    assert str(parse_address(text)) == address


def test_without_a_text_there_is_no_address() -> None:
    """An empty variable is not set."""
    assert parse_address("") is None


@pytest.mark.parametrize(
    "text", [":9464", "x", "1.2.3:80", "example.com:80", "65536", "-1", "::1:", "[::1]", "²"]
)
def test_everything_else_is_a_wrong_setting(text: str) -> None:
    """One line with the name, the value and the form."""
    with pytest.raises(InvalidSettings, match=r"^--metrics \(SCHEDULER_METRICS\): .* is not \[HOST:\]PORT"):
        parse_address(text)


def test_names_are_read_in_lower_case_each_once() -> None:
    """Separated by commas."""
    assert parse_http_hosts("a.Example.com, b,,a.example.com") == ("a.example.com", "b")
    assert parse_http_hosts("") == ()


@pytest.mark.parametrize(
    "text", ["a:80", "http://a", "*", "a b", ".a", "a" * 64, ",".join(f"h{n}" for n in range(65))]
)
def test_what_is_no_name_of_a_host_is_a_wrong_setting(text: str) -> None:
    """No port, no pattern, and not too many."""
    with pytest.raises(InvalidSettings, match=r"^--http-hosts"):
        parse_http_hosts(text)


def test_an_address_has_the_form_that_a_url_needs() -> None:
    """One of IPv6 in brackets."""
    assert str(Address("::1", 1)) == "[::1]:1"
