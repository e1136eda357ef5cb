"""The hosts that a request may name."""

import pytest

from scheduler.web.hosts import Hosts

OURS = Hosts(["scheduler.example.com"])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:9464",
        "127.0.0.1:9464",
        "10.1.2.3",
        "[::1]",
        "[fe80::1]:80",
        "scheduler.example.com",
        "Scheduler.Example.com.:80",
    ],
)
def test_addresses_and_names_of_ours_are_allowed(host: str) -> None:
    """Whoever asks by an address cannot have been led here by a name."""
    assert OURS.allows(host)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "::1", "[evil]", "[::1]x", "1",
     "example.com", "xscheduler.example.com", "localhost:80:80", "[::1]:evil", "localhost@evil.example"],
)  # fmt: skip
def test_a_name_that_is_not_ours_is_refused(host: str) -> None:
    """A page can have a name of its own resolve to this machine."""
    assert not OURS.allows(host)
