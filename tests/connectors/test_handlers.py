"""Declarations of handlers, and the mistakes in them."""

# ruff: noqa: ARG005 - signatures are what is tested

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import attrs
import pytest

from scheduler.connectors import Connectors, Context


@attrs.define
class Vpc:
    name: str = ""


@attrs.define
class Odd:
    odd: Callable[[], int]


def plain(request: Vpc) -> Vpc:
    """Create a VPC.

    More words.
    """
    return request


async def asynchronous(request: dict[str, Any], context: Context) -> None: ...


class Creating:
    async def __call__(self, request: Vpc) -> None: ...


def no_annotations(request, context): ...  # type: ignore[no-untyped-def]


def nothing() -> None: ...


def with_default(request: Mapping[str, Any], more: int = 5) -> None: ...


def declared(function: Callable[..., Any], **options: Any) -> Any:
    connectors = Connectors("aws", **options.pop("of_all", {}))
    assert connectors.create("vpc", **options)(function) is function
    return connectors.handlers[0]


def test_a_declaration_says_all_about_a_handler() -> None:
    """Subject, type, timeout, concurrency, name and summary are there for others to read."""
    handler = declared(plain, timeout=5, concurrency=3)
    assert (handler.subject, handler.request, handler.backend) == ("vpc.create.aws", Vpc, "thread")
    assert (handler.timeout, handler.concurrency, handler.name) == (5.0, 3, "plain")
    assert handler.summary == "Create a VPC."


@pytest.mark.parametrize(
    ("function", "request_type", "takes"),
    [
        (plain, Vpc, (True, False)),
        (asynchronous, dict[str, Any], (True, True)),
        (Creating(), Vpc, (True, False)),
        (no_annotations, dict, (True, True)),
        (nothing, dict, (False, False)),
        (with_default, Mapping[str, Any], (True, False)),
        (partial(asynchronous), dict[str, Any], (True, True)),
        (lambda request: request, dict, (True, False)),
    ],
)
def test_a_signature_decides_about_the_arguments(
    function: Callable[..., Any], request_type: Any, takes: tuple[bool, bool]
) -> None:
    """The request's type comes from the annotation, and a context is for those who ask for it."""
    handler = declared(function)
    assert (handler.request, (handler.takes_request, handler.takes_context)) == (request_type, takes)


@pytest.mark.parametrize(
    ("function", "backends"),
    [
        (plain, ("thread", "thread")),
        (asynchronous, ("trio", "asyncio")),
        (Creating(), ("trio", "asyncio")),
        (partial(asynchronous), ("trio", "asyncio")),
    ],
)
def test_a_plain_function_runs_in_a_thread_and_others_where_it_is_said(
    function: Callable[..., Any], backends: tuple[str, str]
) -> None:
    """``backend`` is about every ``async def``, and about nothing else."""
    assert (declared(function).backend, declared(function, of_all={"backend": "asyncio"}).backend) == backends


def test_the_decorator_knows_better_than_the_provider() -> None:
    """One handler may run elsewhere than the others."""
    assert declared(asynchronous, backend="asyncio").backend == "asyncio"


@pytest.mark.parametrize(
    ("function", "options", "text"),
    [
        (plain, {"backend": "trio"}, "plain: is a plain function, which runs in a thread, not on trio"),
        (asynchronous, {"backend": "thread"}, "asynchronous: is an async function, which does not run in a"),
        (asynchronous, {"backend": "curio"}, "asynchronous: there is no backend 'curio': expected 'trio'"),
        (lambda a, b: None, {}, "takes at most (request, context), in this order"),
        (lambda context, request: None, {}, "takes at most (request, context), in this order"),
        (lambda *, a: None, {}, "the argument 'a' cannot be given"),
        (plain, {"request": int}, "plain: a request cannot be <class 'int'>: expected a class of attrs"),
        (plain, {"request": Odd}, "plain: a request cannot be <class"),
        (plain, {"timeout": 0}, "plain: timeout is 0: expected seconds, above 0"),
        (plain, {"concurrency": True}, "plain: concurrency is True: expected 1 to 10000"),
        (plain, {"on_cancel": "ignore"}, "on_cancel is 'ignore': expected 'cancel' or 'flag'"),
    ],
)
def test_a_mistake_is_found_at_the_declaration(
    function: Callable[..., Any], options: dict[str, Any], text: str
) -> None:
    """The message names the function and the cure, long before a request comes."""
    with pytest.raises((TypeError, ValueError)) as caught:
        declared(function, **options)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda: Connectors("done"), "'done' is reserved"),
        (lambda: Connectors("a.b"), "does not match"),
        (lambda: Connectors("aws", backend="thread"), "expected 'trio' or 'asyncio'"),
        (lambda: Connectors("aws").create("build"), "'build' is reserved"),
        (lambda: Connectors("aws").create(), "name the type of component: connectors.create('vpc')"),
        (lambda: Connectors("aws").on("destroy", "vpc"), "there is no action 'destroy'"),
    ],
)
def test_a_subject_that_cannot_be_is_refused(act: Callable[[], Any], text: str) -> None:
    """A token that would forge a message of the system is no type and no provider."""
    with pytest.raises(ValueError, match=r".") as caught:
        act()
    assert text in str(caught.value)


def test_a_subject_has_one_handler() -> None:
    """Two would each get a share of the requests."""
    connectors = Connectors("aws")
    connectors.create("vpc", "subnet")(plain)
    with pytest.raises(ValueError, match=r"^vpc\.create\.aws has a handler already: plain$"):
        connectors.create("vpc")(nothing)
    assert [handler.subject for handler in connectors.handlers] == ["vpc.create.aws", "subnet.create.aws"]


async def test_a_connector_without_handlers_does_not_run() -> None:
    """It would wait for nothing."""
    with pytest.raises(ValueError, match="no handler is declared"):
        await Connectors("aws").run("nats://127.0.0.1:1")
