"""A build with a secret in every kind of place, and connectors that repeat each in some way."""

import base64
import json
from collections.abc import Callable
from itertools import count
from urllib.parse import quote

from attrs import field, frozen

from support.fakes import JSON, Reply, change

_numbers = count(10)


def plain(secret: str) -> str:
    """As it is."""
    return secret


def in_base64(before: str) -> Callable[[str], str]:
    """In base64, behind something."""
    return lambda secret: base64.b64encode(f"{before}{secret}!".encode()).decode()


def in_json(secret: str) -> str:
    """In a string of JSON."""
    return json.dumps({"message": f"bad {secret}"})


def in_json_twice(secret: str) -> str:
    """In JSON within JSON."""
    return json.dumps({"body": json.dumps([secret])})


CARRIED, SUPPLIED, CHOSEN = "Cnry01q9Zx7K", "Cnry02q9Zx7K", "Cnry03q9Zx7K"
"""Secrets: one in a reply to which another component refers, one of an operator, one in the options."""
OTHERS = {
    "source": "",
    "carrier": f"the note is {CARRIED}",
    "late": "",
    "after": f"got {SUPPLIED}",
    "chosen": f"{CHOSEN} has no access",
}
"""Components that do not stand alone, and what their connectors say is wrong."""

WRITTEN: tuple[Callable[[str], str], ...] = (
    plain,
    repr,
    in_json,
    in_json_twice,
    str.upper,
    str.lower,
    lambda secret: quote(secret, safe=""),
    lambda secret: quote(secret, safe="").lower(),
    lambda secret: f"https://api.example.com/login?x={quote(secret)}&y=1",
    lambda secret: secret.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;"),
    lambda secret: secret.replace("&", "&#38;").replace("<", "&#x3c;"),
    lambda secret: "".join(f"\\u{ord(one):04x}" for one in secret),
    lambda secret: "".join(f"\\x{ord(one):02x}" for one in secret),
    lambda secret: "".join(f"%{ord(one):02X}" for one in secret),
    in_base64(""),
    in_base64("u"),
    in_base64("u:"),
    lambda secret: base64.urlsafe_b64encode(f"user:{secret}".encode()).decode().rstrip("="),
    lambda secret: secret.encode().hex(),
    lambda secret: f"0x{secret.encode().hex().upper()}",
)
"""Forms in which programs write a value into a message."""


@frozen
class Canary:
    """A secret, where it stands, and what is said with it in an error."""

    secret: str
    what: str
    submitted: JSON = field(factory=dict)
    """Fields of the change."""
    existing: JSON = field(factory=dict)
    """Fields of a component that exists."""
    returned: JSON = field(factory=dict)
    """Fields that the connector adds."""
    said: str = ""
    """In the error of this component; nothing where it completes."""
    early: str = ""
    """In the error of its first attempt."""


def marks_of(secret: str) -> list[str]:
    """Parts of it none of which may be seen: in small letters as it is and in hex; and in base64."""
    core = secret[:9]
    shifted = [base64.b64encode(f"{'u' * shift}{core}".encode()).decode()[4:-4] for shift in range(3)]
    return [core.lower(), core.encode().hex(), *shifted]


def _secret(end: str = "x7K") -> str:
    return f"Cnry{next(_numbers)}q9Z{end}"


def canaries() -> list[Canary]:
    """Some of every kind."""
    found: list[Canary] = []

    def add(
        what: str, make: Callable[[str], JSON], said: Callable[[str], str] = plain, secret: str = ""
    ) -> None:
        secret = secret or _secret()
        found.append(Canary(secret, what, **{"said": f"refused: {said(secret)} is wrong", **make(secret)}))

    def named(name: str, text: str = "{}") -> Callable[[str], JSON]:
        return lambda secret: {"submitted": {name: text.format(secret)}}

    def saying(text: str) -> Callable[[str], JSON]:
        return lambda secret: {"said": text.format(secret)}

    # By name, in the build.
    names = (
        *("password", "DB_PASSWORD", "dbPassword", "passphrase", "pwd", "client_secret", "api_key", "ApiKey"),
        *("private_key", "ssh_key", "tls_key", "otp", "sas", "authToken", "bearer", "psk", "session_cookie"),
        *("encryption_key", "recovery_code", "X-Api-Key", "nkey_seed", "webhook_key", "passcode", "pat"),
    )
    for number, name in enumerate(names):
        add(name, named(name), WRITTEN[number % 3])
    # In every way of writing it.
    for number, write in enumerate(WRITTEN):
        add(f"written {number}", named("password"), write, _secret("&a b<\"'/\\+x"))
    # Deeper, in lists, as keys, in pairs, by `_secret`, in credentials.
    add("deep", lambda one: {"submitted": {"x": [{"y": {"secrets": [{"z": one}]}}]}})
    add("a key", lambda one: {"submitted": {"tokens": {one: "reader"}}})
    add("a pair", lambda one: {"submitted": {"environment": [{"name": "DB_PASSWORD", "value": one}]}})
    add("Key and Value", lambda one: {"submitted": {"tags": [{"Key": "api_token", "Value": one}]}})
    add("_secret", lambda one: {"submitted": {"user_data": one, "_secret": ["user_data"]}})
    add("_secret, deep", lambda one: {"submitted": {"r": [{}, {"x": one}], "_secret": ["r[1].x"]}})
    add("existing", lambda one: {"existing": {"admin_password": one}})
    add("credentials", lambda one: {"existing": {"_component": "credentials::aws", "key": one}})
    add("credentials of a change", lambda one: {"submitted": {"credentials": {"region": "eu", "pin": one}}})
    # In documents.
    documents = {
        "JSON": '{{"user": "u", "password": "{}", "port": 5432}}',
        "JSON, deep": '{{"accounts": [{{"name": "a", "auth": "{}"}}]}}',
        "YAML": "user: admin\npassword: '{}'\nhost: db\n",
        "kubeconfig": "apiVersion: v1\nusers:\n- name: admin\n  user:\n    token: {}\n",
        "settings": "export DB_USER=u\nexport DB_PASS={}\n",
        "connection string": "Server=db;User=u;Password={};Timeout=5",
        "words": "host=db user=u password={} dbname=x",
        "header": "Bearer {}",
        "lines": "-----BEGIN PRIVATE KEY-----\nMIIabc\n{}\nxyz=\n-----END PRIVATE KEY-----",
    }
    for what, document in documents.items():
        add(what, named("secret", document))
    add("base64", lambda one: {"submitted": {"secret": in_base64("")(one)}}, lambda one: f"{one}!")
    add(
        "basic",
        lambda one: {
            "submitted": {"authorization": "Basic " + base64.b64encode(f"u:{one}".encode()).decode()}
        },
    )
    urls = {
        "database_url": "postgres://app:{}@db:5432/x",
        "broker": "amqp://:{}@mq/%2f",
        "repository": "https://{}@git.example.com/x.git",
        "sas_url": "https://blob.example.com/x?sv=1&sig={}&se=2",
    }
    for name, url in urls.items():
        add(name, named(name, url))
    add(
        "an escaped URL",
        lambda one: {"submitted": {"url": f"x://u:{quote(one, safe='')}@h"}},
        secret=_secret("@/+"),
    )
    # What connectors return, with an error or without.
    add("returned with its error", lambda one: {"returned": {"generated": {"admin_password": one}}})
    add("returned in a list", lambda one: {"returned": {"access_tokens": [{"x": one}]}}, in_base64("u"))
    add("a URL that was returned", lambda one: {"returned": {"endpoint": f"https://u:{one}@h"}})
    add(
        "of an early attempt",
        lambda one: {"submitted": {"password": one}, "early": f"first: {one}", "said": f"{one}"},
    )
    # What nobody knew.
    unknown = (
        *("mysql --password {} -h db", "run --token={} now", "the password is {}", 'invalid token "{}"'),
        *('argv: ["mysql", "--password", "{}"]', "headers: Authorization: Bearer {}", "sent X-Api-Key: {}"),
        *('{{"api_key": "{}"}}', "got password={} from u", "cannot open x://u:{}@h/x", "secret => '{}'"),
        *(
            "--db-password '{}' was given",
            "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
        ),
    )
    for text in unknown:
        add(text, saying(text))
    add("quoted JSON", lambda one: {"said": json.dumps(json.dumps({"apiKey": one}))})
    add("a known form", lambda one: {"said": f"got ghp_{one}{'a1' * 12} back"})
    return found


def definition(cases: list[Canary]) -> JSON:
    """A build in which each has a component of its own."""
    changes = []
    for number, case in enumerate(cases):
        one = change(f"c-{number}") | case.submitted
        if case.early:
            one["_retry"] = {"attempts": 2, "backoff": 1}
        changes.append(one)
    changes += [
        change("source"),
        change("carrier", note="{{ components['source'].admin_password }}"),
        change("late"),
        change("after"),
        change("chosen"),
    ]
    existing = [
        {**change(f"e-{number}"), "_state": "completed", **case.existing}
        for number, case in enumerate(cases)
        if case.existing
    ]
    return {
        "id": "b1",
        "name": "test",
        "action": "build.create",
        "options": {"on_error": "continue", "client_secret": CHOSEN},
        "components": existing,
        "changes": changes,
        "edges": [
            {"source": "source", "destination": "carrier"},
            {"source": "late", "destination": "after"},
        ],
    }


def script_of(cases: list[Canary]) -> Callable[[JSON], list[Reply]]:
    """Connectors that say what they are to say; nothing for the component that an operator skips."""
    seen: set[str] = set()

    def script(component: JSON) -> list[Reply]:
        name = component["_component_id"]
        if name not in OTHERS:
            case = cases[int(name.partition("-")[2])]
            said, returned = case.said, case.returned
            if case.early and name not in seen:
                seen.add(name)
                said = case.early
        elif name == "late":
            return []
        else:
            said, returned = OTHERS[name], {"admin_password": CARRIED} if name == "source" else {}
        fields = {**returned, "error": said} if said else returned
        return [Reply("errored" if said else "completed", fields=fields)]

    return script
