"""Contexts of the ``nats`` command: what is read, what goes before it, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scheduler.bus.options import DEFAULT_INBOX, DEFAULT_SERVER, BusOptions
from scheduler.commands.flags import BrokerFlags, settings_of
from scheduler.commands.service_flags import EmbeddedFlags
from scheduler.config.contexts import known_contexts, read_context
from scheduler.errors import InvalidSettings

SECRET = "hunter2"
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Write a context's file; its members are the keywords."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def written(name: str, content: str | None = None, **members: Any) -> Path:
        path = tmp_path / "nats" / "context" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(members) if content is None else content)
        return path

    return written


def options(context: str = "prod", **flags: Any) -> BusOptions:
    """The options of a command with these flags."""
    return settings_of(BrokerFlags(context=context, **flags)).bus


def refusal(context: str = "prod", **flags: Any) -> str:
    """The message of a command that does not begin."""
    with pytest.raises(InvalidSettings) as caught:
        options(context, **flags)
    message = str(caught.value)
    assert SECRET not in message
    assert "\n" not in message
    return message


# What is read.


def test_an_empty_context_changes_nothing(save: Save) -> None:
    """Members that are empty or missing leave our defaults, and those about other things are ignored."""
    save(
        "prod",
        url="",
        user="",
        creds=None,
        windows_ca_certs_match=None,
        color_scheme="red",
        description="x",
        new=1,
    )
    assert options() == BusOptions()
    assert (options().servers, options().inbox_prefix) == ((DEFAULT_SERVER,), DEFAULT_INBOX)


def test_each_member_fills_its_setting(save: Save, tmp_path: Path) -> None:
    """Addresses, prefix of inboxes, TLS first and each way to log in."""
    save("prod", url="one:1, nats://two:2", inbox_prefix="_INBOX.me", tls_first=True, token=SECRET)
    made = options()
    assert made.servers == ("nats://one:1", "nats://two:2")
    assert (made.inbox_prefix, made.tls_first, made.token) == ("_INBOX.me", True, SECRET)
    save("prod", user="joe", password=SECRET)
    assert (options().user, options().password) == ("joe", SECRET)
    file = tmp_path / "file"
    file.touch()
    save("prod", creds=str(file))
    assert options().credentials == file
    save("prod", nkey=f"file://{file}")
    assert options().nkey == file


def test_paths_are_expanded(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``~`` at the begin, ``$NAME`` and ``${NAME}``; a variable that is not set is told."""
    (tmp_path / "me.creds").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KEYS", str(tmp_path))
    for path in ("~/me.creds", "$KEYS/me.creds", "${KEYS}/me.creds"):
        save("prod", creds=path)
        assert options().credentials == tmp_path / "me.creds"
    monkeypatch.delenv("KEYS")
    assert "prod.json: the variable KEYS is not set" in refusal()


def test_the_folder_is_in_the_home_directory(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``~/.config/nats``, unless XDG_CONFIG_HOME says otherwise."""
    save("prod")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert known_contexts() == []
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".config").symlink_to(tmp_path)
    assert known_contexts() == ["prod"]


def test_the_selected_context_has_to_be_asked_for(save: Save) -> None:
    """It is used as ``.`` only: a selection for another tool does not decide where builds run."""
    selected = save("prod", url="nats://prod").parent.parent / "context.txt"
    assert "no context is selected in" in refusal(".")
    selected.write_text("prod\n")
    assert options(".").servers == ("nats://prod",)
    assert settings_of(BrokerFlags()).bus.servers == (DEFAULT_SERVER,)


def test_an_embedded_broker_needs_no_context() -> None:
    """With a broker of our own the context is not even read."""
    assert settings_of(BrokerFlags(context="gone"), EmbeddedFlags(embedded=True)).embedded


def test_a_context_shows_no_secret(save: Save) -> None:
    """It may stand in a traceback."""
    save("prod", token=SECRET, url=f"nats://joe:{SECRET}@h")
    assert SECRET not in repr(read_context("prod"))


# What goes before it.


def test_what_is_given_goes_before_the_context(save: Save) -> None:
    """Each setting for itself, also where the default is given in so many words."""
    save("prod", url="nats://prod", inbox_prefix="_INBOX.me", tls_first=True)
    made = options(nats_url=DEFAULT_SERVER, inbox_prefix=DEFAULT_INBOX, tls_first=False)
    assert made == BusOptions()
    assert options(inbox_prefix="_INBOX.you").servers == ("nats://prod",)


def test_a_login_that_is_given_replaces_the_contexts(save: Save) -> None:
    """Whole, as two ways to log in contradict each other; in a URL as well."""
    save("prod", user="joe", password=SECRET)
    assert options(token="t") == BusOptions(token="t")
    assert options(nats_url="nats://t@h") == BusOptions(servers=("nats://t@h",))
    save("prod", token=SECRET)
    assert options(user="a", password="b") == BusOptions(user="a", password="b")
    save("prod", url=f"nats://joe:{SECRET}@h")
    assert options(token="t") == BusOptions(servers=("nats://h",), token="t")


def test_a_password_completes_the_contexts_user(save: Save) -> None:
    """The file may leave the password to a variable."""
    save("prod", user="joe")
    assert options(password="p") == BusOptions(user="joe", password="p")
    message = refusal()
    assert message.startswith("user in /")
    assert message.endswith("prod.json is given without --password (SCHEDULER_PASSWORD)")


def test_a_certificate_that_is_given_comes_without_the_contexts_key(save: Save) -> None:
    """The key belongs to the context's own certificate; a key that is given replaces the context's."""
    save("prod", cert="/c", key="/k")
    given = {"tls_certificate": Path("/other")}
    assert read_context("prod").under(given) == given
    assert read_context("prod").under({"tls_key": Path("/k2")}) == {
        "tls_certificate": Path("/c"),
        "tls_key": Path("/k2"),
    }


# What is refused.


def test_an_unknown_context_is_told_with_those_that_exist(save: Save) -> None:
    """And the one with nearly that name; where there is none, how to add one."""
    assert "there is no context 'prdo' in /" in refusal("prdo")
    assert refusal("prdo").endswith("nor any other; `nats context add` adds one")
    save("prod")
    save("dev")
    assert refusal("prdo").startswith("--context (NATS_CONTEXT): there is no context 'prdo'")
    assert refusal("prdo").endswith("; did you mean 'prod'? there are: dev, prod")
    for number in range(30):
        save(f"many-{number:02}")
    assert refusal("prdo").endswith("many-18 and 12 more")


@pytest.mark.parametrize("name", ["../prod", "a/b", "a\\b", "..", "a\nb", "\x00"])
def test_a_name_leads_nowhere_else(save: Save, name: str) -> None:
    """Only files in the folder are read."""
    save("prod")
    assert "is not a context's name" in refusal(name)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "Input data was truncated; correct it with `nats context edit`"),
        ("[]", "Expected `object`, got `array`; correct it"),
        (f'{{"user": ["{SECRET}"]}}', "Expected `str | null`, got `array` - at `$.user`; correct it"),
        ('{"tls_first": "yes"}', "Expected `bool | null`, got `str` - at `$.tls_first`; correct it"),
        ('{"user": "\xff"}'.encode("latin-1").decode("utf-8", "surrogateescape"), "Invalid UTF-8"),
        (" " * (1 << 20) + "{}", "is larger than 1,048,576 bytes"),
    ],
)
def test_a_file_that_is_no_context_is_told(save: Save, content: str, problem: str) -> None:
    """With its path and the member, without the value."""
    path = save("prod")
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    message = refusal()
    assert message.startswith(f"--context (NATS_CONTEXT): {path}")
    assert problem in message


def test_a_file_that_cannot_be_read_is_told(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read every file, so that the system's answer is made up."""
    path = save("prod")

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    assert refusal() == f"--context (NATS_CONTEXT): cannot read {path}: Permission denied"


def test_something_else_in_the_files_place_is_told(save: Save) -> None:
    """A folder; nor would a pipe be waited for."""
    path = save("prod")
    path.unlink()
    path.mkdir()
    assert refusal() == f"--context (NATS_CONTEXT): {path} is not a file"


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("socks_proxy", "socks5://joe:hunter2@h"),
        ("jetstream_domain", "hub"),
        ("jetstream_api_prefix", "$JS.hub.API"),
        ("nsc", "nsc://o/a/u"),
        ("user_jwt", SECRET),
        ("user_seed", SECRET),
        ("windows_cert_store", "windowscurrentuser"),
        ("windows_ca_certs_match", ["x"]),
    ],
)
def test_what_is_not_supported_is_refused(save: Save, member: str, value: Any) -> None:
    """The connection would be another one: file, member and cure are named."""
    path = save("prod", **{member: value})
    assert refusal().startswith(f"{member} in {path} is not supported: ")


@pytest.mark.parametrize(
    ("member", "value", "problem"),
    [
        (
            "password",
            "op://vault/hunter2",
            "op: is not looked up; give the value as --password (SCHEDULER_PASS",
        ),
        ("token", "env://TOKEN", "env: is not looked up; give the value as --token (SCHEDULER_TOKEN)"),
        ("creds", "nsc://o/a/u", "nsc: is not looked up; write it to a file, and name that file"),
        ("nkey", "DATA:;base64,hunter2", "DATA: is not looked up; write it to a file"),
        ("creds", "/no/where", "cannot read '/no/where': No such file or directory"),
        ("creds", "~nobody-of-ours/x", "there is no such home directory; write the whole path"),
        ("ca", "/dev/null", "'/dev/null' holds no usable certificates"),
        ("cert", "/no/where", "cannot read '/no/where'"),
        ("inbox_prefix", "a b", "'a b'"),
        ("url", "ws://h:80", "'ws://h:80' is not a broker's address: nats|tls://host:port"),
        ("url", "nats://joe:hunter2@h:x", "the value is not a broker's address"),
    ],
)
def test_a_value_that_cannot_be_used_is_told(save: Save, member: str, value: str, problem: str) -> None:
    """In terms of the context's members, without secrets."""
    path = save("prod", **{"user": "joe", member: value} if member == "password" else {member: value})
    message = refusal()
    assert message.startswith(f"{member} in {path}: ")
    assert problem in message


def test_contradictions_name_member_and_flag(save: Save) -> None:
    """Each by where it comes from."""
    path = save("prod", token=SECRET, creds="/dev/null")
    assert f"token in {path} and creds in {path}; choose one" in refusal()
    save("prod", ca="/no/where")
    assert refusal(tls_ca=Path("/not/here")).startswith(
        "--tls-ca (SCHEDULER_TLS_CA): cannot read '/not/here'"
    )
    path = save("prod", key="/dev/null")
    assert refusal() == f"key in {path} is given without --tls-certificate (SCHEDULER_TLS_CERTIFICATE)"
