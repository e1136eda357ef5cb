"""Results of simulated connectors: what one returns for a request. Pure.

A result is the request with fields that connectors of the cloud would return, with those that references ask
for (`Invention`), and with those that somebody set (`OutputRule`), which go before all others.
"""

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from attrs import field, frozen

from scheduler.setting import invalid

_PATTERN_TOKEN = re.compile(r"\*|[A-Za-z0-9_-]{1,64}")

_AWS_IDS = {
    "vpc": ("vpc_aws_id", "vpc-", 8),
    "internet_gateway": ("internet_gateway_aws_id", "igw-", 8),
    "network": ("network_aws_id", "subnet-", 8),
    "firewall": ("security_group_aws_id", "sg-", 8),
    "instance": ("instance_aws_id", "i-", 17),
    "nat": ("nat_gateway_aws_id", "nat-", 17),
    "ebs_volume": ("volume_aws_id", "vol-", 17),
    "route53": ("hosted_zone_id", "Z", 13),
}
"""Field in which an Ernest connector returns the cloud's name of the new resource, and its form."""


@frozen
class OutputRule:
    """Field that simulated connectors set in answers to requests that match ``pattern``."""

    pattern: tuple[str, ...]
    name: str
    value: Any

    def matches(self, tokens: Sequence[str]) -> bool:
        """Tell whether it applies to a request whose subject has these tokens."""
        return all(mine in {"*", token} for mine, token in zip(self.pattern, tokens, strict=True))


def parse_output(text: str) -> OutputRule:
    """Read ``instance.create.*:public_ip=1.2.3.4``; the value is read as JSON, otherwise as text.

    Raises:
        ValueError: the text does not have this form.
    """
    pattern, colon, assignment = text.partition(":")
    name, equals, value = assignment.partition("=")
    tokens = tuple(pattern.strip().split("."))
    if not colon or not equals or not name.strip() or len(tokens) != 3:
        raise ValueError(text)
    if not all(_PATTERN_TOKEN.fullmatch(token) for token in tokens):
        raise ValueError(text)
    try:
        decoded = json.loads(value)
    except ValueError:
        decoded = value
    return OutputRule(tokens, name.strip(), decoded)


def parse_outputs(texts: Sequence[str]) -> tuple[OutputRule, ...]:
    """Read several flags, each as `parse_output` does.

    Raises:
        InvalidSettings: one of them does not have this form.
    """
    outputs = []
    for text in texts:
        try:
            outputs.append(parse_output(text))
        except ValueError:
            allowed = "is not of the form PATTERN:FIELD=VALUE, such as instance.create.*:public_ip=1.2.3.4"
            raise invalid("outputs", text, allowed) from None
    return tuple(outputs)


@frozen
class Invention:
    """Fields that the references of a build ask for, by the id of the component that is to return them."""

    fields: Mapping[str, Mapping[str, Any]] = field(factory=dict, repr=False)
    found: Mapping[str, Sequence[Mapping[str, Any]]] = field(factory=dict, repr=False)
    """Components that a search is to find, by the search's id."""


NOTHING: Final = Invention()
NO_OUTPUTS: Final[Mapping[str, Any]] = {}


def completed(
    subject: str,
    component: Mapping[str, Any],
    outputs: Mapping[str, Any] = NO_OUTPUTS,
    invention: Invention = NOTHING,
) -> dict[str, Any]:
    """Return the result of a request that succeeds.

    Args:
        subject: the subject of the request.
        component: the request.
        outputs: fields to set.
        invention: fields to invent, by component.
    """
    tokens = subject.split(".")
    reply = dict(component)
    reply["_state"] = "completed"
    verb = tokens[1]
    name = component.get("_component_id")
    name = name if isinstance(name, str) else ""
    if verb in {"create", "get"}:
        _invent(reply, tokens[0])
    elif verb == "find":
        reply["components"] = [_found(component, tokens[0]), *invention.found.get(name, ())]
    for key, value in invention.fields.get(name, {}).items():
        reply[key] = supplemented(reply.get(key), value)
    return {**reply, **outputs}


def supplemented(value: Any, invented: Any) -> Any:
    """Return a value with what is missing in it, or empty, taken from an invented one."""
    if isinstance(value, dict) and isinstance(invented, dict):
        return value | {key: supplemented(value.get(key), one) for key, one in invented.items()}
    if isinstance(value, list) and isinstance(invented, list):
        return [supplemented(*pair) for pair in zip(value, invented, strict=False)] + (
            value[len(invented) :] or invented[len(value) :]
        )
    if value is None or value == "" or isinstance(invented, dict | list):
        return invented
    return value


def _invent(component: dict[str, Any], kind: str) -> None:
    """Set the cloud's name of the new resource, unless it has one."""
    seed = f"{component.get('service', '')}\0{component.get('_component_id', '')}"
    digest = blake2b(seed.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    name, prefix, digits = _AWS_IDS.get(kind, (f"{kind}_id", f"{kind}-", 8))
    invented: dict[str, Any] = {name: prefix + digest[:digits]}
    last = int(digest[-2:], 16)
    if kind == "instance":
        # An address reserved for documentation (RFC 5737).
        invented |= {"public_ip": f"203.0.113.{last}"}
        if component.get("assign_elastic_ip"):
            invented |= {"elastic_ip": f"198.51.100.{last}"}
    elif kind == "nat":
        invented |= {"nat_gateway_allocation_id": f"eipalloc-{digest[:17]}"}
    elif kind == "elb":
        invented = {"dns_name": f"{component.get('name')}-{int(digest[:8], 16)}.eu-west-1.elb.amazonaws.com"}
    elif kind in {"rds_instance", "rds_cluster"}:
        invented = {"endpoint": f"{component.get('name')}.{digest[:12]}.eu-west-1.rds.amazonaws.com"}
    for key, value in invented.items():
        if not component.get(key):
            component[key] = value


def _found(query: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the one component that a search finds."""
    found = {key: value for key, value in query.items() if key not in {"components", "error"}}
    found |= {
        "_component_id": f"{kind}::found-{query.get('name') or 'it'}",
        "_action": "none",
        "_state": "completed",
    }
    _invent(found, kind)
    return found
