"""Settings of notifications: URLs, allowed hosts, and the secret that signs."""

import base64
from pathlib import Path
from typing import Any

import pytest

from scheduler.commands.flags import settings_of
from scheduler.commands.service_flags import ServiceFlags
from scheduler.config import Settings
from scheduler.config.notifications import parse_notify, parse_notify_hosts, read_signing_keys
from scheduler.errors import InvalidSettings

SECRET = "hunter2-hunter2-hunter2-hunter2"
URL = "https://hooks.example.com/hunter3"


def test_urls_are_separated_by_commas_and_may_have_some() -> None:
    """Only a comma before another URL separates."""
    text = f"{URL}?a=1,2, http://127.0.0.1:9000/x ,{URL}?a=1,2"
    assert parse_notify(text) == (f"{URL}?a=1,2", "http://127.0.0.1:9000/x")
    assert parse_notify("") == ()
    assert parse_notify_hosts("a.example, b.example:8443,,a.example") == ("a.example", "b.example:8443")


def test_the_flags_make_the_settings() -> None:
    """With them there are notifications, and without them there are none."""
    settings = settings_of(ServiceFlags(notify=URL, notify_hosts="a.example", notify_secret=SECRET))
    assert settings.notifies
    assert [one.url for one in settings.destinations] == [URL]
    assert settings.allowed_hosts is not None
    assert settings.signing_keys() == (SECRET.encode(),)
    assert not Settings().notifies
    assert Settings().allowed_hosts is None


def test_settings_show_neither_secret_nor_paths() -> None:
    """Both may let anyone post."""
    settings = Settings(notify=(URL,), notify_secret=SECRET)
    assert "hunter" not in repr(settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"notify": URL}, "--notify-secret (SCHEDULER_NOTIFY_SECRET): a secret is needed, as"),
        ({"notify_hosts": "a.example"}, "--notify-secret (SCHEDULER_NOTIFY_SECRET): a secret is needed, as"),
        ({"notify": "hunter3", "notify_secret": SECRET}, "--notify (SCHEDULER_NOTIFY): URL 1: expected a"),
        ({"notify": ",".join(f"{URL}{n}" for n in range(17))}, "--notify (SCHEDULER_NOTIFY): names 17 URLs"),
        ({"notify_hosts": "*.example"}, "(SCHEDULER_NOTIFY_HOSTS): '*.example' is no host, such as"),
        ({"notify_hosts": ",".join(f"a{n}.example" for n in range(65))}, "names 65 hosts, of at most 64"),
        ({"notify": URL, "notify_secret": "hunter2"}, "the value is shorter than 24 bytes: anyone could"),
        ({"notify": URL, "notify_secret": "whsec_hunter2"}, "is neither ASCII nor whsec_ and base64"),
        ({"notify": URL, "notify_secret": "h\u00f6" * 20}, "is neither ASCII nor whsec_ and base64"),
        ({"notify": URL, "notify_secret": f"{SECRET} " * 5}, "has 5 secrets, of at most 4"),
        (
            {"notify": URL, "notify_secret_file": Path("/no/where")},
            "--notify-secret-file (SCHEDULER_NOTIFY_SECRET_FILE): cannot read '/no/where': No such file",
        ),
        (
            {"notify": URL, "notify_secret": SECRET, "notify_secret_file": Path("/no/where")},
            "is given, and --notify-secret-file as well; choose one",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_with_its_flag_and_no_secret(given: dict[str, Any], message: str) -> None:
    """One line, with the cure where there is one."""
    with pytest.raises(InvalidSettings) as caught:
        settings_of(ServiceFlags(**given))
    assert message in str(caught.value)
    assert "hunter" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_secret_comes_from_a_file_and_may_be_replaced(tmp_path: Path) -> None:
    """A line each, in clear or in the form of Standard Webhooks; white space at the ends does not count."""
    file = tmp_path / "secret"
    other = b"\x00\xff" * 12
    file.write_text(f"{SECRET}\n\nwhsec_{base64.b64encode(other).decode()}\n")
    assert read_signing_keys(None, file) == (SECRET.encode(), other)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "is needed"), (b"\xff" * 30, "no text in ASCII"), (b"x" * 5_000, "more than 4,096 bytes")],
)
def test_a_file_that_is_no_secret_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    """Whatever it is, it is not read whole, and not shown."""
    file = tmp_path / "secret"
    file.write_bytes(data)
    with pytest.raises(InvalidSettings, match=message):
        read_signing_keys(None, file)


def test_a_secret_that_nothing_needs_is_not_read() -> None:
    """A variable that is set for all services harms none."""
    assert Settings(notify_secret_file=Path("/no/where")).notifies is False
