"""Secrets stay out of what people see: canaries in every kind of place, and nothing else is touched."""

import base64
import html
import json
import re
import string
import sys
import time
import tracemalloc
import urllib.parse
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from support.builds import Document, Run, build, change, prepare, problems_of

from scheduler.definition.model import Build
from scheduler.definition.secrets import index as secretindex
from scheduler.definition.secrets import names as secretnames
from scheduler.definition.secrets.index import SecretIndex, Tries, folded
from scheduler.definition.secrets.masking import HIDDEN, UNREAD, Secrets
from scheduler.definition.secrets.names import has_secret_names, is_secret_name
from scheduler.definition.secrets.parts import parts_of
from scheduler.definition.secrets.patterns import mask_named
from scheduler.errors import Problem
from scheduler.log import mask_secrets
from scheduler.plan.outcome import cut
from scheduler.text import mask_url

CANARY = "c4nary-bird"


def secrets_of(*values: Any, **fields: Any) -> Secrets:
    """What is learnt from a document with these fields, and from each of ``values`` as a password."""
    secrets = Secrets()
    secrets.add({**fields, "passwords": list(values)}, at_once=None)
    return secrets


# Names.


@pytest.mark.parametrize(
    "name",
    [
        *(
            "password",
            "Password",
            "DB_PASSWORD",
            "dbPassword",
            "master-user-password",
            "passwd",
            "passphrase",
        ),
        *("db_pass", "pwd", "secret", "client_secret", "secretKey", "awsSecretAccessKey", "secrets"),
        *(
            "token",
            "authToken",
            "tokens",
            "session-token",
            "credentials",
            "aws_credentials",
            "apikey",
            "api_key",
        ),
        *(
            "API-Key",
            "apiKey",
            "X-Api-Key",
            "APIKEY",
            "access_key",
            "access_key_id",
            "AccessKeyId",
            "privateKey",
        ),
        *("private_key_pem", "Authorization", "nkey", "nkey_seed", "jwt", "bearer", "psk", "shared_key"),
        *("connection_string", "kubeconfig", "secret_id", "password2", "_password", "encryption_key"),
        *(
            "ssh_key",
            "sshKeys",
            "tls_key",
            "TLS-Key",
            "tls_key_pem",
            "otp",
            "totp",
            "sas",
            "sas_url",
            "sasToken",
        ),
        *("github_pat", "pat", "session_cookie", "recovery_codes", "mfa_code", "db_pw", "app_key2", "SSHKEY"),
    ],
)
def test_secret_names(name: str) -> None:
    """The usual names of secrets are known, however their words are joined."""
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "_component",
            "_component_id",
            "_secret",
            "_raw",
            "name",
            "key",
            "key_name",
            "key_pair",
            "public_key",
        ),
        *(
            "keys",
            "monkey",
            "partition_key",
            "tokenizer",
            "token_count",
            "max_tokens",
            "token_type",
            "secretary",
        ),
        *(
            "password_policy",
            "secret_name",
            "secret_arn",
            "credentials_file",
            "private_ip",
            "bypass",
            "compass",
        ),
        *(
            "passes",
            "author",
            "authorization_type",
            "has_password",
            "private_key_path",
            "encryption_key_id",
            "",
        ),
        *(
            "ssh_key_name",
            "ssh_key_id",
            "ssh_public_key",
            "public_ssh_key",
            "host_key_checking",
            "tls_key_path",
        ),
        *("pat_pool", "sas_disks", "cookie_duration", "otp_digits", "ssh_key_fingerprint", "hotspot", "path"),
        *("token_ttl", "secret_version", "sort_key", "kms_key_id", "secretKeyRef", "min_password_length"),
    ],
)
def test_other_names(name: str) -> None:
    """What is known of a secret, or only sounds like one, is none."""
    assert not is_secret_name(name)


@given(st.text(max_size=30), st.sampled_from(["password", "apiKey", "client-secret", "AUTH_TOKEN"]))
def test_a_secret_name_is_not_missed_at_a_first_glance(around: str, name: str) -> None:
    """The quick look at a component sees every name that the long one does."""
    for key in (name, f"{name}_{around}", f"{around}-{name}"):
        assert has_secret_names({"x": [{"y": {key: 1}}]}) or not is_secret_name(key)


def test_names_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile build's names fill no memory, and are judged all the same."""
    monkeypatch.setattr(secretnames, "_MOST_KEPT", 10)
    for number in range(100):
        assert is_secret_name(f"password_x{number}")
        assert not has_secret_names({f"x{number}": 1})
    assert is_secret_name("password_" + "x" * 10_000)
    assert len(secretnames._names) <= 10
    assert len(secretnames._plain) <= 10


# Where secrets stand.


PLACES: dict[str, Document] = {
    "change": build(change("a", db_password=CANARY)),
    "deep": build(change("a", x=[{"y": {"apiKey": CANARY}}])),
    "below a secret name": build(change("a", secrets=[{"x": ["short", CANARY]}])),
    "component": build(components=[change("a", token=CANARY)]),
    "options": build(options={"client_secret": CANARY}),
    "datacenters": build(datacenters={"items": [{"name": "dc", "secret_access_key": CANARY}]}),
    "credentials component": build(components=[change("credentials::x", key=CANARY)]),
    "credentials change": build(change("aws_credentials::x", nested={"keys": [CANARY]})),
    "credentials field": build(change("a", credentials={"region": "eu-west-1", "pin": CANARY})),
    "found credentials": build(
        components=[{**change("a"), "x": [change("credentials::y", api_data=CANARY)]}]
    ),
    "_secret": build(change("a", user_data=CANARY, _secret=["user_data"])),
    "_secret path": build(change("a", tags={"x": CANARY, "y": "plain-value"}, _secret=["tags.x"])),
    "_secret index": build(change("a", r=[{}, {"x": CANARY}], _secret=["r[1].x"])),
    "_secret object": build(components=[change("a", r={"deep": [CANARY]}, _secret=["r"])]),
    "completed": build(change("a", password=CANARY, _state="completed")),
    "with white space": build(change("a", password=f" {CANARY}\n")),
    "between references": build(change("a", password=f"{{{{ build.id }}}}:{CANARY}:{{{{ build.id }}}}")),
    "as number": build(change("a", password=123456789)),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_build_knows_its_secrets(place: str) -> None:
    """Wherever in a build a secret stands, no text shows it."""
    secrets = prepare(PLACES[place]).secrets
    shown = secrets.mask(f"{CANARY} was refused ({CANARY}x, 123456789)")
    assert CANARY not in shown if place != "as number" else "123456789" not in shown
    assert "was refused" in shown
    assert "eu-west-1" in secrets.mask("in eu-west-1: plain-value")
    assert "plain-value" in secrets.mask("in eu-west-1: plain-value")
    assert CANARY not in repr(secrets)


@pytest.mark.parametrize("place", sorted(PLACES.keys() - {"between references"}))
def test_a_document_is_shown_without_its_secrets(place: str) -> None:
    """A document for people has no secret, even if none was learned before, and everything else."""
    shown = json.dumps(Secrets().mask_document(PLACES[place]))
    assert CANARY not in shown
    assert "123456789" not in shown
    assert "***" in shown
    assert '"username": "somebody"' in shown


def test_a_document_is_masked_in_its_texts_and_keys_too() -> None:
    """A known secret is masked wherever it comes up again; what has another type stays."""
    document = {"error": f"bad {CANARY}", CANARY: [1, None, True, 1.5], "password": None, "token": True}
    shown = secrets_of(CANARY).mask_document(document)
    assert shown == {"error": "bad ***", "***": [1, None, True, 1.5], "password": None, "token": True}


def test_a_document_nested_without_end_is_shown_up_to_a_depth() -> None:
    """Nesting beyond what JSON may have raises nothing."""
    document: Any = CANARY
    for _ in range(300):
        document = [document]
    assert CANARY not in json.dumps(Secrets().mask_document(document))


def test_a_connector_adds_secrets() -> None:
    """What a connector returned under a secret name is known from then on; braces in it are text."""
    secrets = Secrets()
    secrets.add({"name": "plain-name", "generated": {"admin_password": "{{ " + CANARY}})
    secrets.add_json(b'{"token": "t0ken-value"}')
    assert secrets.mask("plain-name {{ " + CANARY + " t0ken-value") == "plain-name *** ***"
    assert len(secrets) == 2


@pytest.mark.parametrize("value", ["$(components.x.password)", "{{ components['x'].password }}", " {{ a }} "])
def test_references_are_no_secrets(value: str) -> None:
    """A secret field that wholly refers to another one has nothing to hide."""
    assert not prepare_secrets(change("a", password=value))


def test_braces_that_a_connector_returned_are_secret() -> None:
    """What looks like a reference in a completed change is what its connector made."""
    secrets = prepare(build(change("a", password="{{ odd password }}", _state="completed"))).secrets
    assert secrets.mask("got {{ odd password }}") == "got ***"


def test_a_connector_has_no_say_in_what_is_secret() -> None:
    """A reply's own ``_secret`` is not taken over."""
    run = Run(build(change("a", "update", x=CANARY, _secret=["x"])))
    assert run.send("a")["_secret"] == ["x"]
    settled = run.answer("a", {"x": CANARY, "_secret": []})
    assert settled.body["_secret"] == ["x"]
    run = Run(build(change("a")))
    run.send("a")
    assert "_secret" not in run.answer("a", {"x": 1, "_secret": 5}).body


def prepare_secrets(*changes: Document) -> Secrets:
    """Those of a build with these changes, whatever else is wrong with it."""
    from scheduler.definition.codec import parse_build  # noqa: PLC0415 - here only

    found: Build = parse_build(json.dumps(build(*changes)).encode()).build
    return Secrets.of(found)


@pytest.mark.parametrize(
    "value", ["", "abc", "true", "null", "None", "12345", "****", "   ", 5, True, None, 1.5]
)
def test_trivial_values_are_not_looked_for(value: Any) -> None:
    """A value that stands everywhere would mask everything."""
    assert not secrets_of(value)


PROVIDERS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "aws": (
        {"name": "prod-aws", "region": "eu-west-1", "aws_access_key_id": "key-4711", "dc_name": "dc-one"},
        {"aws_secret_access_key": CANARY, "session_token": "c4nary-two"},
    ),
    "azure": (
        {
            "region": "westeurope", "azure_environment": "public", "azure_subscription_id": "sub-4711",
            "azure_tenant_id": "tenant-4711", "azure_client_id": "client-4711", "azureEnvironment": "usgov",
        },
        {"azure_client_secret": CANARY, "azureClientSecret": "c4nary-two", "storage-keys": "c4nary-three"},
    ),
    "vcloud": (
        {
            "vdc": "production", "vcloud_url": "https://vc.example.com", "external_network": "outside",
            "username": "operator", "userName": "somebody", "vcloud_region": "north", "url": "https://x.example",
        },
        {"password": CANARY, "vdc_password": "c4nary-two", "urlKey": "c4nary-three"},
    ),
    "bare": (
        {"keyspace": "plain-one", "monkey": "plain-two", "pinned": "plain-three", "data_center": "plain-four",
         "key_name": "plain-five", "keyId": "plain-six", "ids": "plain-seven", "value_type": "plain-eight",
         "token_url": "plain-nine"},
        {"key": CANARY, "KEYS": "c4nary-two", "pin": "c4nary-three", "value": "c4nary-four",
         "data": "c4nary-five", "sshKey": "c4nary-six", "secret_id": "c4nary-seven", "key2": "c4nary-eight"},
    ),
}  # fmt: skip
"""By provider: fields of a credentials component that people may read, and those that they may not."""


@pytest.mark.parametrize("provider", PROVIDERS)
def test_of_credentials_only_what_is_called_a_secret_is_one(provider: str) -> None:
    """Where the cloud is, whom one logs in as and what ids there are can be read in any text."""
    plain, secret = PROVIDERS[provider]
    for fields in ({**plain, **secret}, {"nested": {"deep": [{**plain, **secret}]}}):
        one = build(components=[change("credentials::a", **fields)])
        secrets = prepare(one).secrets
        text = " ".join([*plain.values(), "credentials::a fake create waiting"])
        assert secrets.mask(text) == text
        assert secrets.mask(" ".join(secret.values())) == " ".join(["***"] * len(secret))
        assert Secrets.of_document(one).mask(" ".join([text, *secret.values()])).startswith(f"{text} ***")


def test_a_list_is_as_secret_as_its_name() -> None:
    """Of lists in credentials those count that are called secrets; in a field of credentials all are."""
    one = change("credentials::a", roles=["reader"], keys=["c4nary-one"], credentials=["c4nary-two"])
    secrets = prepare(build(components=[one])).secrets
    assert secrets.mask("reader c4nary-one c4nary-two") == "reader *** ***"


def test_half_a_secret_before_a_cut_is_masked() -> None:
    """A text that is too long is kept as it was said up to the bound, which may be within a secret."""
    secrets = secrets_of(CANARY, "pass phrase")
    text = cut(f"{'x' * 180} {CANARY} and more {'x' * 100}", 210)
    assert "c4nary-b ... (cut" in text
    assert secrets.mask(f"{text} (after 2 attempts)").endswith(" *** ... (cut: 302 bytes) (after 2 attempts)")
    assert secrets.mask("pass ... (cut: 9 bytes)") == "*** ... (cut: 9 bytes)"
    assert secrets.mask("a car ... (cut: 9 bytes)") == "a car ... (cut: 9 bytes)"


# Refusals.


@pytest.mark.parametrize(
    "fields",
    [
        {"password": "x{{ " + CANARY.replace("-", "_") + " }}"},
        {"password": "{{ 'a' | " + CANARY.replace("-", "_") + " }}"},
        {"x": {"api_key": "{{ 1 " + CANARY.replace("-", "_") + "}}"}},
        {"_component": "credentials", "key": "{{" + CANARY.replace("-", "_") + "}}"},
        {"_secret": ["x"], "x": ["{{" + CANARY.replace("-", "_") + "}}"]},
        {"password": CANARY, "_action": "delete", "_provider": CANARY + "!"},
    ],
)
def test_a_refusal_repeats_no_secret(fields: Document) -> None:
    """What is wrong with a build is said without the secrets in it, or parts of them."""
    (problem,) = problems_of(build(change("a", **fields)))
    assert "nary" not in problem
    assert "c4" not in problem


def test_a_refusal_of_a_plain_field_says_what_is_wrong() -> None:
    """Where nothing is secret, the text at fault is quoted; so is a reference in a secret field."""
    assert "nobody" in problems_of(build(change("a", x="{{ nobody }}")))[0]
    text = '{{ components["nobody"].password }}'
    assert problems_of(build(change("a", password=text))) == ["a.password: there is no 'nobody'"]


@pytest.mark.parametrize("wrong", [5, "x", ["x", 5], [""], {"x": 1}])
def test_a_wrong_list_of_secrets_is_named(wrong: Any) -> None:
    """``_secret`` that cannot be followed is refused with its place, on components as on changes."""
    message = '_secret: _secret is a list of names of fields, such as ["user_data", "tags.x"]'
    assert problems_of(build(change("a", _secret=wrong))) == [f"a.{message}"]
    assert problems_of(build(components=[change("b", _secret=wrong)])) == [f"b.{message}"]
    assert prepare(build(change("a", _secret=wrong)), resumed=True).build.changes


def test_a_list_of_secrets_is_never_rendered() -> None:
    """Braces in ``_secret`` are part of a name, and a connector has no say in it."""
    prepared = prepare(build(change("a", _secret=["{{ nobody }}"])))
    assert prepared.build.changes[0].settings == {"_secret": ["{{ nobody }}"]}


# Texts.


def written(value: str) -> list[str]:
    """Ways in which a value turns up in the texts of programs."""
    quoted = json.dumps(value, ensure_ascii=False)[1:-1]
    ascii_ = json.dumps(value)[1:-1]
    return [
        value,
        quoted,
        ascii_,
        json.dumps(quoted)[1:-1],
        json.dumps(ascii_)[1:-1],
        json.dumps({"error": json.dumps([value])}),
        ascii_.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
        ascii_.replace("/", "\\/"),
        repr(value),
        repr([value, "'"]),
        repr(value + "'")[1:-2] if '"' not in value else repr(value),
        ascii(value),
        json.dumps(repr(value)),
        urllib.parse.quote(value),
        urllib.parse.quote(value, safe=""),
        re.sub("%..", lambda code: code[0].lower(), urllib.parse.quote(value, safe="")),
        urllib.parse.quote(value, safe="!*'()"),
        urllib.parse.quote(value, safe="/!*'()$&+=:@"),
        urllib.parse.quote_plus(value),
        html.escape(value),
        "".join(f"\\u{ord(one):04x}" if one.isascii() else one for one in value),
        value.translate({ord(one): one.swapcase() for one in string.ascii_letters}),
        value.encode().hex(),
        value.encode().hex().upper(),
        *(base64.b64encode(b"x" * shift + value.encode() + b"?").decode() for shift in range(3)),
        base64.urlsafe_b64encode(value.encode()).decode(),
    ]


texts = st.text(max_size=20)
values = st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=8, max_size=24).filter(
    lambda value: len(value.strip()) >= 8 and "\x00" not in value
)


@given(values, texts, texts)
@example("pa\"ss'w\\o/r<d>&\n\u2028\U0001f511", "x", '"')
@example("\nleading-break", "", "")
def test_no_secret_survives(value: str, before: str, after: str) -> None:
    """A secret is masked in whatever way it is written, whatever stands around it."""
    value = value.strip()
    # Right behind half an escape, or within one, it is another text.
    assume("\\" not in before and "%" not in before and "&" not in before)
    secrets = secrets_of(value)
    assume(len(secrets))
    for form in written(value):
        shown = secrets.mask(before + form + after)
        for inner in written(value):
            if inner not in before and inner not in after:
                assert inner not in shown, form


@given(st.lists(values, max_size=5), st.text(max_size=60))
def test_texts_without_secrets_are_left_alone(known: list[str], text: str) -> None:
    """Nothing is replaced in a text that holds no secret."""
    secrets = secrets_of(*known)
    found = [one for starts in secrets._index._by_start.values() for ones in starts.values() for one in ones]
    assume(not any(one in folded(text) for one in found))
    assert secrets._without_values(text) == text


@given(st.lists(st.text("ab", min_size=4, max_size=12), max_size=8), st.text("ab", max_size=40))
def test_exactly_the_secrets_go(known: list[str], text: str) -> None:
    """Every character of a secret is masked, overlapping ones in one, and every other one stays."""
    covered = [" "] * len(text)
    for value in known:
        for at in range(len(text)):
            if text.startswith(value, at):
                covered[at : at + len(value)] = ["*"] * len(value)
    left = "".join("*" if mark == "*" else character for mark, character in zip(covered, text, strict=True))
    shown = secrets_of(*known).mask(text)
    assert shown.replace("*", "") == left.replace("*", "")
    assert not any(value in shown for value in known)


def test_the_longest_secret_goes_as_one() -> None:
    """A secret that another one begins with is not left with its end showing."""
    assert secrets_of("abcd", "abcdefghi", "abcdefg").mask("x abcdefghi abcdefgh") == "x *** ***h"
    assert secrets_of("abcdefgh", "efghijkl").mask("-abcdefghijkl-") == "-***-"
    assert secrets_of("abcdefghijkl", "cdef").mask("-abcdefghijkl-") == "-***-"


def test_what_a_text_has_of_a_long_secret() -> None:
    """Of a long secret a text need not have all: its beginning goes, its end, and each of its lines."""
    long = "".join(f"{number:05}-" for number in range(20_000))
    secrets = secrets_of(long)
    assert secrets.mask(f"got {long[:500]} back") == "got *** back"
    assert secrets.mask(f"got {long[:40_000]}") == "got ***"
    assert secrets.mask(f"ends in {long[-64:]}") == "ends in ***"
    lines = secrets_of("\n".join(f"line {number} of it" for number in range(300)))
    assert lines.mask("at line 277 of it: x") == "at ***: x"


def test_capitals_are_folded_in_their_places() -> None:
    """Every character is compared as one character, whatever stands beside it."""
    every = "".join(map(chr, range(0x20, 0xD800)))
    assert [folded(one) for one in every] == list(folded(every))


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("hunter2", []),
        ("Bearer abc.def", ["abc.def"]),
        ('{"user": "u", "password": "pw12", "port": 5432, "x": "abcdefgh1"}', ["pw12", "abcdefgh1"]),
        ("{not json", []),
        ("user: admin\npassword: 'pw12' \nhost: db.example.com1\n", ["pw12"]),
        ("export A_TOKEN=abcd\nB=no\n", ["abcd"]),
        ("-----BEGIN KEY-----\nMIIabcde\nx==\n-----END KEY-----", ["MIIabcde"]),
        ("Server=db;User=u;Password=pw12;Timeout=5", ["pw12"]),
        ("postgres://u:p%40w1@h/x?sslkey=a&sig=abcd&x=efgh", ["p%40w1", "p@w1", "abcd"]),
        ("https://abcdefgh1@h", ["abcdefgh1"]),
        ("https://user@h/x", []),
        (base64.b64encode(b"user:pw12").decode(), ["user:pw12", "pw12"]),
    ],
)
def test_parts_of_a_secret(value: str, parts: list[str]) -> None:
    """What a secret is made of is known by itself: values of documents, passwords of URLs, lines."""
    assert set(filter(None, parts_of(value))) == set(parts)


def test_lines_of_a_secret_joined() -> None:
    """A secret of several lines is also known on one, as terminals show it."""
    assert secrets_of("first line\nsecond line").mask("x first line second line y") == "x *** y"


STAIRCASES = {
    "one start": (["a" * 80 + f"{number:05}" for number in range(20_000)], "a" * 65_536),
    "staircase": (["a" * number + "b" for number in range(4, 1_500)], "a" * 65_536),
    "near": (["a" * number for number in range(4, 600)], "ab" * 32_768),
    "digits": ([f"{number:08}x" for number in range(50_000)], "0" * 65_536),
    "ends": (["a" * 30 + f"{number:05}" for number in range(20_000)], "b" * 65_490 + "a" * 40),
}


@pytest.mark.parametrize("attack", STAIRCASES)
def test_the_work_for_a_text_is_bounded(attack: str) -> None:
    """However many texts begin alike, a search takes work in proportion to the length of what is searched."""
    known, text = STAIRCASES[attack]
    index = SecretIndex()
    for one in known:
        index.add(one)
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event == "c_call"

    tries = Tries(len(text))
    most = tries.left
    sys.setprofile(count)
    try:
        found = list(index.find(text, tries, cut=True))
    finally:
        sys.setprofile(None)
    assert calls <= 4 * most
    left = list(text)
    for begin, end in found:
        left[begin:end] = " " * (end - begin)
    assert not any(value in "".join(left) for value in known[-10:])


def test_a_text_that_takes_too_long_is_masked_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather too much is masked than too little when the work runs out."""
    monkeypatch.setattr(secretindex, "_TRIES", -30)
    secrets = secrets_of(*("abcd" * 16 + str(number) for number in range(99)))
    assert secrets.mask("good " + "abcd" * 17 + " bad") == "good ***"


# What stands behind secret names in texts.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter2", "password=***"),
        ("a --db-password=hunter2 b", "a --db-password=*** b"),
        ("error:password=hunter2", "error:password=***"),
        ("https://x/?token=abc&page=2", "https://x/?token=***&page=2"),
        ('{"password": "hun\\"ter2", "a": "b"}', '{"password": "***", "a": "b"}'),
        ("{'api_key': 'hunter2', 'a': 1}", "{'api_key': '***', 'a': 1}"),
        (r'"{\"apiKey\": \"hunter2\", \"a\": 1}"', r'"{\"apiKey\": \"***\", \"a\": 1}"'),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("authorization: Basic dXNlcjpwYXNz;", "authorization: Basic ***;"),
        ("X-Api-Key: 0123456789ab, x", "X-Api-Key: ***, x"),
        ("secret => hunter2", "secret => ***"),
        ('password="not closed', 'password="***'),
        ("key AKIAABCDEFGHIJKLMNOP is", "key *** is"),
        ("got eyJhbGciOiJI.eyJzdWIiOiIx.abc-_ back", "got *** back"),
        ("Bearer 0123456789abcdef sent", "Bearer *** sent"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- x", "*** x"),
        ("-----BEGIN PRIVATE KEY-----\nMII", "***"),
        ("nats://u:p@h password=x", "nats://***@h password=***"),
        ("mysql --password hunter2 -h db", "mysql --password *** -h db"),
        ("mysql -password 'hunter two' x", "mysql -password '***' x"),
        ('["x", "--api-key", "hunter2"]', '["x", "--api-key", "***"]'),
        ("the password is hunter2.", "the password is ***"),
        ("the API key was 'hunter'", "the API key was '***'"),
        ('invalid token "abcd12345"', 'invalid token "***"'),
        ("got ghp_0123456789abcdefghij back", "got *** back"),
    ],
)
def test_values_behind_secret_names(text: str, shown: str) -> None:
    """Values echoed by APIs are masked, although they are not known."""
    assert Secrets().mask(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "token: expected a string",
        "a.password: required, and it is missing",
        "credentials::aws: timed out after 3600 s",
        "secret::db-1 failed; token::x1234567 too",
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-1",
        "key_name=prod, public_key: 'ssh-rsa AAAA', max_tokens=100",
        "Bearer authentication-is-required",
        "the password is wrong",
        "the password is required, and --token is missing",
        "no such key 'instance-12345'; the secret 'db-creds-1' was not found",
        "use --token to log in, or --password-file x",
        "invalid token",
        "x = 5, y: 'z'",
    ],
)
def test_prose_stays(text: str) -> None:
    """Messages about secrets can be read."""
    assert Secrets().mask(text) == text


@given(st.text("aA1-_=:\"'\\ \n{}.@/", max_size=80))
@example('secret=\\"')
def test_masking_of_texts_never_fails(text: str) -> None:
    """Whatever a text is made of, it comes out masked, and masking it once more changes nothing."""
    once = mask_named("password" + text)
    assert mask_named(once) == once


ATTACKS = (
    *("://", "x://u", "x://a@b ", "a-", "secret='", 'token=\\"', "password : ", "eyJ", "eyJaaaaaaaa."),
    *("pwd=Basic ", "password=a ", "--token a ", "--a ", '--key\\"', "key:key:", "key is is ", "key 'x"),
    *('key "', "pass pass ", "Bearer ", "-----BEGIN PRIVATE KEY", "-----BEGIN A ", "ghp_", "-", "a_"),
    *('key="', "token: token: ", "a", "ab01", "61", "\\", "\\n", "\\\\n", "\\u0061", "\\x61", "%61"),
    *("%c3%a9", "&lt;", "a+b%", "\n", "é", "密", " ... (cut: ", "a%61\\n+&lt; ... (cut: ", "aaaaaaab"),
    *('\\"key\\":\\"a%61&lt;+', "c4nary-bir"),
)


@pytest.mark.parametrize("part", ATTACKS)
def test_long_texts_of_one_part(part: str) -> None:
    """Repeated parts of what is searched for make nothing slow: what grows as the square takes seconds."""
    alike = (end for number in range(4, 100) for end in ("a" * number, "a" * number + "b"))
    secrets = secrets_of(CANARY, *alike)
    text = part * (65_536 // len(part))
    began = time.thread_time()
    secrets.mask(text)
    assert time.thread_time() - began < 0.4
    began = time.thread_time()
    secrets.mask(text, 1_000)
    assert time.thread_time() - began < 0.2


def test_the_same_text_is_looked_at_once_more_when_something_was_learnt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What all attempts of a component say is masked once, until more secrets are known."""
    secrets = secrets_of("hunter2222")
    looked: list[str] = []
    plainly = Secrets._masked

    def masked(self: Secrets, text: str, *, cut: bool) -> str:
        looked.append(text)
        return plainly(self, text, cut=cut)

    monkeypatch.setattr(Secrets, "_masked", masked)
    beginning = f"hunter2222 {CANARY} "
    for end in ("x", "x", "y", "y" * 9_000):
        assert secrets.mask(beginning + end, 40) == f"*** {CANARY} {end}"[:40]
    assert len(looked) == 3, "the last one is cut"
    secrets.add({"password": CANARY})
    assert secrets.mask(beginning + "y" * 9_000, 40) == f"*** *** {'y' * 40}"[:40]


def test_of_a_long_problem_the_beginning_is_told() -> None:
    """A problem of a build may quote it at length; only the beginning is shown."""
    problem = Problem("a.x", f"{CANARY} is " + "wrong " * 10_000)
    shown = secrets_of(CANARY).mask_problem(problem)
    assert shown.message.startswith("*** is wrong")
    assert len(shown.message) == 4_000


def test_thousands_of_values_in_a_text_are_masked_to_its_end() -> None:
    """A text of nothing but values behind secret names costs no more than some of them."""
    shown = Secrets().mask("a password=x1 " * 5_000 + "b")
    assert shown.startswith("a password=*** a password=*** ")
    assert shown.endswith("password=******")
    assert shown.count("password") < 2_000


def test_user_information_up_to_the_last_at() -> None:
    """A password may hold an @ of its own."""
    assert mask_url("x://a@b@c y://d z@") == "x://***@c y://d z@"


def test_basic_credentials_in_a_header() -> None:
    """A login that is sent as base64 is masked in its header."""
    login = base64.b64encode(b"user:" + CANARY.encode()).decode()
    assert login not in Secrets().mask(f'headers {{"Authorization": "Basic {login}"}}')


# The log.


def test_the_log_has_no_secret() -> None:
    """Secret names are the same in the log, also within what is logged."""
    event = {"db_password": CANARY, "x": [{"apiKey": CANARY, "private_ip": "10.0.0.1"}], "token_count": 5}
    shown = mask_secrets(
        None, "info", {**event, "event": f"got password={CANARY}", "error": f"Token: '{CANARY}'"}
    )
    assert CANARY not in json.dumps(shown)
    assert "10.0.0.1" in json.dumps(shown)
    assert shown["token_count"] == 5


# How much may come in.


LARGE: dict[str, Any] = {
    "one long": {"password": "x1" * 500_000},
    "short lines": {"password": "abcdefg1\n" * 10_000},
    "quotes": {"password": "\"'\\\n" * 20_000},
    "a document": {"password": json.dumps([f"secret{number}" for number in range(4_000)])},
    "many short": {"passwords": [f"p{number:05}" for number in range(30_000)]},
    "many long": {"passwords": [f"p{number:05}" * 20 for number in range(10_000)]},
    "elements": {"x": [1] * 60_000},
    "names": {"x": {f"k{number}": 1 for number in range(8_000)}},
    "secret names": {"tokens": {f"k{number:07}": 1 for number in range(10_000)}},
    "urls": {"x": [f"x://u:p{number:07}@h" for number in range(8_000)]},
    "urls in one": {"x": "x://u:p1234567@h " * 10_000},
    "pairs": {"password": "a=b;" * 16_000},
}


@pytest.mark.parametrize("kind", LARGE)
def test_what_is_learnt_at_once_is_bounded(kind: str) -> None:
    """Of what comes in only so much is looked at in one go; no text is shown before all of it was."""
    secrets = Secrets()
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    longest, done, begun = 0, False, False
    while not done:
        calls = 0
        sys.setprofile(count)
        try:
            if begun:
                done = secrets.learn()
            else:
                secrets.add(LARGE[kind])
                begun = True
        finally:
            sys.setprofile(None)
        longest = max(longest, calls)
    assert longest < 60_000
    assert secrets.mask("hello") in {"hello", HIDDEN}


def test_a_text_is_not_shown_while_secrets_are_learnt() -> None:
    """A text that comes with more than can be learnt at once is masked whole, until that is done."""
    secrets = secrets_of("first-secret")
    secrets.add({"x": [1] * 100_000, "password": CANARY})
    assert secrets.mask("a word") == UNREAD
    assert secrets.mask("a word", 3) == "***"
    while not secrets.learn():
        pass
    assert secrets.mask(f"a word: {CANARY}, first-secret") == "a word: ***, ***"


def test_a_text_is_not_shown_while_another_thread_learns() -> None:
    """While secrets are being learnt beside the loop, no text is shown that may have one of them."""
    secrets = secrets_of("first-secret")
    with secrets._learns:
        secrets.add({"password": CANARY})
        assert secrets.mask(f"a word: {CANARY}") == UNREAD
    assert secrets.mask(f"a word: {CANARY}") == "a word: ***"


def test_a_text_that_is_masked_twice_is_masked_anew_for_each_secret() -> None:
    """What was shown of a text before holds until another secret is known, and for its length."""
    secrets = secrets_of("first-secret")
    text = f"first-secret and {CANARY}"
    assert secrets.mask(text, 100) == f"*** and {CANARY}"
    secrets.add({"token": CANARY})
    assert secrets.mask(text, 100) == "*** and ***"
    assert secrets.mask(text, 5) == "*** a"
    assert secrets.mask(text, 100) == "*** and ***"


def test_of_a_long_text_the_beginning_is_masked() -> None:
    """Where a text is cut to be shown, half a secret at the cut goes, too."""
    secrets = secrets_of("abcdefgh" * 100, CANARY)
    assert "abcd" not in secrets.mask("x" * 1_000 + "abcdefgh" * 10_000, 1_100)
    for shift in range(60):
        assert "4nary" not in secrets.mask("x" * (3_040 - shift) + CANARY * 100, 1_000)


def test_who_keeps_a_masked_text_is_told_when_it_is_good_no_longer() -> None:
    """What says whether a text must be masked again changes with each secret, and when all are learnt."""
    secrets = secrets_of("first-secret")
    before = secrets.known
    assert secrets.known == before
    secrets.add({"token": CANARY})
    assert secrets.known != before
    secrets.add({"x": [1] * 100_000, "token": CANARY})
    assert secrets.mask("a word") == UNREAD
    kept = secrets.known
    for _ in range(100):
        if secrets.known != kept:
            break
    assert secrets.mask("a word") == "a word"


def test_more_secrets_than_are_kept_hide_every_text() -> None:
    """A build with too many secrets has its texts masked whole, for good."""
    secrets = Secrets()
    secrets.add({"passwords": [f"p{number:05}" for number in range(30_000)]}, at_once=None)
    for _ in range(100):
        secrets.add({"password": CANARY})
    assert secrets.mask("p29999 failed") == HIDDEN
    assert secrets.mask_document({"error": "p29999", "x": 1}) == {"error": HIDDEN, "x": 1}
    assert len(secrets) < 2_000


def test_a_secret_in_each_of_many_components_is_learnt() -> None:
    """What a large build has in all honesty is not too much."""
    secrets = Secrets()
    for number in range(5_000):
        secrets.add({"password": f"pw-{number:06}-x", "tls_key": f"key-{number:06}"})
    assert not secrets.full
    assert secrets.mask("x pw-004321-x key-000017") == "x *** ***"


def test_what_is_kept_of_secrets_is_bounded_by_what_came_in() -> None:
    """Secrets take no more than four times the bytes that came in, and a fixed amount for a component."""
    for values in (
        [f"p{number:05}" * 20 for number in range(3_000)],
        ["x1" * 300_000],
        ["ab\n" * 20_000],
    ):
        document = {"passwords": values}
        tracemalloc.start()
        secrets = Secrets()
        secrets.add(document, at_once=None)
        kept, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        size = len(json.dumps(document))
        assert kept < 4 * size + 300_000
        assert most < 4 * size + 3_000_000
