"""A handler: the function that acts for a type and an action, and what its declaration says."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias, get_type_hints

from attrs import define, field, frozen

from scheduler.connectors.context import Context
from scheduler.connectors.conversion import check, is_typed, is_untyped

Backend: TypeAlias = Literal["trio", "asyncio", "thread"]
"""Place in which a handler runs."""
OnCancel: TypeAlias = Literal["cancel", "flag"]
"""What is done to a handler whose attempt was given up."""

_CONTEXT: Final = "context"
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@define
class Counts:
    """Calls of a handler so far."""

    requests: int = 0
    completed: int = 0
    errored: int = 0
    seconds: float = 0.0
    """Time that calls took, all together."""
    last_error: str = field(default="", repr=False)


@frozen(eq=False)
class Handler:
    """A function and its declaration."""

    function: Callable[..., Any] = field(repr=False)
    name: str
    """Name in logs and messages."""
    type: str
    """Type of the components."""
    action: str
    provider: str
    request: Any
    """Type that requests are converted to; ``dict`` where they are not."""
    backend: Backend
    timeout: float
    """Seconds that one call may take."""
    concurrency: int
    """Most calls at a time."""
    on_cancel: OnCancel
    takes_context: bool
    takes_request: bool
    counts: Counts = field(factory=Counts, repr=False)
    is_untyped: bool = field(init=False)
    """Whether it is handed the dict that a request is."""

    @is_untyped.default
    def _find_out(self) -> bool:
        return is_untyped(self.request)

    @property
    def subject(self) -> str:
        """Subject of its requests."""
        return f"{self.type}.{self.action}.{self.provider}"

    @property
    def summary(self) -> str:
        """First line of the function's docstring; empty where it has none."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def arguments(self, request: Any, context: Context | None) -> tuple[Any, ...]:
        """Return the arguments of a call; the context is needed only where one is taken."""
        return (*((request,) if self.takes_request else ()), *((context,) if self.takes_context else ()))


@frozen
class Signature:
    """The part of a function's signature that matters here."""

    request: Any
    takes_request: bool
    takes_context: bool


def read_signature(function: Callable[..., Any]) -> Signature:
    """Read which arguments a function takes, and the type of its request.

    Raises:
        TypeError: it takes others, or is annotated with something that no component can be converted to.
    """
    name = name_of(function)
    try:
        hints = get_type_hints(_unwrapped(function))
    except (NameError, TypeError, AttributeError) as error:
        raise TypeError(f"{name}: an annotation cannot be resolved: {error}") from None
    taken = list(inspect.signature(function).parameters.values())
    required = [one for one in taken if one.kind in _POSITIONAL]
    for one in taken:
        if (
            one.kind not in _POSITIONAL
            and one.default is inspect.Parameter.empty
            and one.kind
            not in (
                inspect.Parameter.VAR_POSITIONAL,
                inspect.Parameter.VAR_KEYWORD,
            )
        ):
            raise TypeError(f"{name}: the argument {one.name!r} cannot be given: by position only")
    required = [one for one in required if one.default is inspect.Parameter.empty or _is_context(one, hints)]
    contexts = [one for one in required if _is_context(one, hints)]
    if len(required) - len(contexts) > 1 or len(contexts) > 1 or (contexts and required[-1] not in contexts):
        raise TypeError(f"{name}: takes at most (request, context), in this order")
    if len(required) == len(contexts):
        return Signature(dict, takes_request=False, takes_context=bool(contexts))
    request = hints.get(required[0].name, dict)
    check_request_type(name, request)
    return Signature(request, takes_request=True, takes_context=bool(contexts))


def check_request_type(name: str, type_: Any) -> None:
    """Raise TypeError if no component can be converted to a type."""
    if not (is_untyped(type_) or is_typed(type_)):
        raise TypeError(
            f"{name}: a request cannot be {type_!r}: expected a class of attrs, dataclasses or msgspec, "
            "or dict"
        )
    try:
        check(type_)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


def _is_context(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> bool:
    hint = hints.get(parameter.name)
    return hint is Context or (hint is None and parameter.name == _CONTEXT)


def _unwrapped(function: Callable[..., Any]) -> Any:
    while hasattr(function, "func"):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function, for messages."""
    while hasattr(function, "func"):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def choose_backend(function: Callable[..., Any], wanted: Backend | None, default: Backend) -> Backend:
    """Return where a function runs.

    Args:
        function: the handler.
        wanted: what its decorator says; None where that says nothing.
        default: what holds for every ``async def``.

    Raises:
        TypeError: it cannot run there.
    """
    name, asynchronous = name_of(function), _is_async(function)
    if wanted not in (None, "trio", "asyncio", "thread"):
        raise TypeError(f"{name}: there is no backend {wanted!r}: expected 'trio', 'asyncio' or 'thread'")
    if not asynchronous:
        if wanted in ("trio", "asyncio"):
            raise TypeError(f"{name}: is a plain function, which runs in a thread, not on {wanted}")
        return "thread"
    if wanted == "thread":
        raise TypeError(f"{name}: is an async function, which does not run in a thread: say trio or asyncio")
    return wanted or default


def _is_async(function: Callable[..., Any]) -> bool:
    while hasattr(function, "func"):
        function = function.func
    # A callable object may be asynchronous, too.
    call = getattr(type(function), "__call__", None)  # noqa: B004 - not whether it can be called
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def check_numbers(name: str, timeout: float, concurrency: int) -> None:
    """Raise ValueError if a handler's timeout or concurrency makes no sense."""
    if isinstance(timeout, bool) or not (0 < timeout < math.inf):
        raise ValueError(f"{name}: timeout is {timeout!r}: expected seconds, above 0")
    if type(concurrency) is not int or not 0 < concurrency <= 10_000:
        raise ValueError(f"{name}: concurrency is {concurrency!r}: expected 1 to 10000")
