"""Registry of verbs: the structure of each, its function, and its schemas for service discovery."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Concatenate, Final, Generic, TypeAlias, TypeVar

import msgspec
from attrs import frozen

from scheduler.control.verbs import Answer, BuildRequest, Command, Document
from scheduler.definition.strictjson import encode
from scheduler.errors import Refused
from scheduler.journal.orders import Order

_Request = TypeVar("_Request", bound=BuildRequest)
_Parts = TypeVar("_Parts")
_Act: TypeAlias = Callable[Concatenate[_Parts, _Request, ...], Awaitable[Answer | Document]]


LONGEST_NAME: Final = 256
"""Characters of an operator's name that are kept."""
LONGEST_REASON: Final = 1_000
"""Characters of a reason that are kept."""


@frozen
class Verb(Generic[_Parts]):
    """Verb with the function that answers it."""

    request: type[BuildRequest]
    """Structure of its request."""
    act: Callable[..., Awaitable[Answer | Document]]
    """Function that answers it. It takes the parts and the request; that of a command also its order."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """JSON Schemas of its request and answer, for service discovery (ADR-32)."""
        return {
            "request_schema": encode(json_schema(self.request)).decode(),
            "response_schema": encode(json_schema(self.request.answer)).decode(),
        }

    async def answer(self, parts: _Parts, document: Document, user: str = "") -> Answer | Document:
        """Read a request and answer it.

        Args:
            parts: parts of the service.
            document: the request.
            user: its sender, where the broker vouches for it.

        Raises:
            Refused: the request is wrong, or what it asks for cannot be done.
        """
        request = read_request(self.request, document)
        if isinstance(request, Command):
            return await self.act(parts, request, order_of(request, user))
        return await self.act(parts, request)


class Verbs(Mapping[str, Verb[_Parts]]):
    """Verbs by name, in the order in which they were registered."""

    def __init__(self, *others: Mapping[str, Verb[_Parts]]) -> None:
        self._verbs: dict[str, Verb[_Parts]] = {}
        for other in others:
            self._verbs.update(other)

    def __getitem__(self, name: str) -> Verb[_Parts]:
        return self._verbs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._verbs)

    def __len__(self) -> int:
        return len(self._verbs)

    def register(self, request: type[_Request]) -> Callable[[_Act[_Parts, _Request]], _Act[_Parts, _Request]]:
        """Register the decorated function as the one that answers these requests."""

        def decorate(act: _Act[_Parts, _Request]) -> _Act[_Parts, _Request]:
            assert request.verb() not in self._verbs, "a verb is registered once"
            self._verbs[request.verb()] = Verb(request, act)
            return act

        return decorate


def order_of(command: Command, user: str) -> Order:
    """Return the order that a command gives, before it is carried out.

    Args:
        command: the command.
        user: its sender, where the broker vouches for it; what the command says itself is a claim.
    """
    component = getattr(command, "component", None) or getattr(command, "start", None) or ""
    return Order(
        command.verb(),
        component=component,
        user=user,
        claim=(command.by or "")[:LONGEST_NAME],
        reason=(command.reason or "")[:LONGEST_REASON],
        id=command.order or "",
    )


def read_request(request: type[_Request], document: Document) -> _Request:
    """Read the request for a verb.

    Raises:
        Refused: a member is missing or wrong; the text names it, and says what is required.
    """
    try:
        return msgspec.convert(document, request)
    except msgspec.ValidationError as error:
        raise Refused("invalid", _complaint(request, document, error)) from None


def _complaint(request: type[BuildRequest], document: Document, error: msgspec.ValidationError) -> str:
    # Which member it is stands in the text of the error as well, but not alike in every version of msgspec.
    for member in msgspec.structs.fields(request):
        name = member.encode_name
        if name in document:
            try:
                msgspec.convert(document[name], member.type)
            except msgspec.ValidationError:
                return f"{name}: {_cure(member.type)}"
        elif member.required:
            return f"{name}: {_cure(member.type)}"
    return str(error)


_CURES: Final = {
    "array": "a list is required",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number is required",
    "object": "an object is required",
    "string": "a text is required",
}


def _cure(type_: Any) -> str:
    """Say what a member has to be."""
    info = msgspec.inspect.type_info(type_)
    if isinstance(info, msgspec.inspect.Metadata) and info.extra and "cure" in info.extra:
        return str(info.extra["cure"])
    schema = msgspec.json.schema(type_)
    schema = next(iter(schema.get("anyOf", ())), schema)
    text = _CURES.get(schema.get("type", ""), "another value is required")
    return f"{text} from {schema['minimum']}" if "minimum" in schema else text


def json_schema(struct: type[msgspec.Struct]) -> Document:
    """Return the JSON Schema of a structure, an object at the top."""
    _, components = msgspec.json.schema_components([struct])
    schema: Document = components.pop(struct.__name__)
    return {**schema, "$defs": components} if components else schema
