"""Handlers of one provider, declared with decorators, and what runs them."""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypedDict, TypeVar, Unpack

import trio

from scheduler.bus import Bus
from scheduler.bus.nats import open_bus
from scheduler.bus.options import DEFAULT_SERVER, BusOptions, parse_servers
from scheduler.connectors.engine import Companion, Engine, Running
from scheduler.connectors.handlers import (
    Backend,
    Handler,
    OnCancel,
    check_numbers,
    check_request_type,
    choose_backend,
    name_of,
    read_signature,
)
from scheduler.connectors.serving import serve
from scheduler.connectors.stores import MemoryStore, Store
from scheduler.connectors.testing import Trial, try_out
from scheduler.connectors.workload import MOST_BYTES, Workload
from scheduler.definition.subjects import token_problem

_F = TypeVar("_F", bound=Callable[..., Any])

CONCURRENCY: Final = 8
"""Calls of one handler at a time."""
TIMEOUT: Final = 3_600.0
"""Seconds of one call, as in the scheduler: databases and gateways take half an hour."""
DRAIN: Final = 30.0
"""Seconds for what is begun to end."""
_INBOX: Final = "_INBOX.connector"


class Options(TypedDict, total=False):
    """Options of a handler; see `Connectors.on`."""

    timeout: float | None
    concurrency: int | None
    backend: Backend | None
    on_cancel: OnCancel
    request: Any
    name: str


class Connectors:
    """The handlers of one provider.

    Args:
        provider: provider that they act for: the last token of the subjects.
        concurrency: most calls at a time of each handler that does not say otherwise.
        timeout: seconds that one call may take, where a handler does not say otherwise.
        backend: loop of every ``async def`` that does not say otherwise: ``trio`` or ``asyncio``. Plain
            functions run in threads, whatever it is.
        store: record of what was done, by key; by default in memory.
        queue: queue group, in which processes share the requests.
        instance: name of this process in heartbeats and logs; by default of host and process.
        max_waiting_bytes: bytes of requests that may wait for a call to end; others are refused as ``busy``.
            It should be above the scheduler's ``--max-bytes-in-flight``.

    Raises:
        ValueError: the provider cannot be part of a subject, or a number makes no sense.
    """

    def __init__(
        self,
        provider: str,
        *,
        concurrency: int = CONCURRENCY,
        timeout: float = TIMEOUT,
        backend: Backend = "trio",
        store: Store | None = None,
        queue: str = "connectors",
        instance: str = "",
        max_waiting_bytes: int = MOST_BYTES,
    ) -> None:
        _check_token("_provider", provider)
        check_numbers("Connectors", timeout, concurrency)
        if backend not in ("trio", "asyncio"):
            raise ValueError(f"Connectors: backend is {backend!r}: expected 'trio' or 'asyncio'")
        self.provider = provider
        self.store: Store = MemoryStore() if store is None else store
        self.queue = queue
        self.instance = instance or f"{socket.gethostname()}-{os.getpid()}"
        self._max_waiting_bytes = max_waiting_bytes
        self._concurrency = concurrency
        self._timeout = timeout
        self._backend: Backend = backend
        self._handlers: dict[str, Handler] = {}

    @property
    def handlers(self) -> Sequence[Handler]:
        """Handlers, one for each subject, in the order of their declaration."""
        return tuple(self._handlers.values())

    # Declarations.

    def create(self, *types: str, **options: Unpack[Options]) -> Callable[[_F], _F]:
        """Declare the handler of ``<type>.create.<provider>``; see `on`."""
        return self.on("create", *types, **options)

    def update(self, *types: str, **options: Unpack[Options]) -> Callable[[_F], _F]:
        """Declare the handler of ``<type>.update.<provider>``; see `on`."""
        return self.on("update", *types, **options)

    def delete(self, *types: str, **options: Unpack[Options]) -> Callable[[_F], _F]:
        """Declare the handler of ``<type>.delete.<provider>``; see `on`."""
        return self.on("delete", *types, **options)

    def get(self, *types: str, **options: Unpack[Options]) -> Callable[[_F], _F]:
        """Declare the handler of ``<type>.get.<provider>``; see `on`."""
        return self.on("get", *types, **options)

    def find(self, *types: str, **options: Unpack[Options]) -> Callable[[_F], _F]:
        """Declare the handler of ``<type>.find.<provider>``, which returns a list of components; see `on`."""
        return self.on("find", *types, **options)

    def on(
        self,
        action: str,
        *types: str,
        timeout: float | None = None,
        concurrency: int | None = None,
        backend: Backend | None = None,
        on_cancel: OnCancel = "cancel",
        request: Any = None,
        name: str = "",
    ) -> Callable[[_F], _F]:
        """Declare a handler; the function stays what it is.

        Args:
            action: ``create``, ``update``, ``delete``, ``get`` or ``find``.
            types: types of component that it acts for, at least one.
            timeout: seconds that a call may take. An ``async def`` is then cancelled; a thread cannot be, and
                goes on without a slot, with `Context.cancelled` set.
            concurrency: most calls at a time, for each type.
            backend: loop of an ``async def``, where it is another one than that of the others.
            on_cancel: ``cancel`` ends the call once the scheduler gave it up; ``flag`` only sets
                `Context.cancelled`.
            request: type that requests are converted to; by default the argument's annotation.
            name: name in logs and messages; by default the function's.

        Raises:
            TypeError: the function cannot be a handler; the message has the reason.
            ValueError: a type cannot be part of a subject, has a handler already, or a number makes no sense.
        """
        if action not in _ACTIONS:
            raise ValueError(f"there is no action {action!r}: expected {', '.join(_ACTIONS)}")
        if not types:
            raise ValueError(f"{action}: name the type of component: connectors.{action}('vpc')")
        for one in types:
            _check_token("_component", one)
        if on_cancel not in ("cancel", "flag"):
            raise ValueError(f"on_cancel is {on_cancel!r}: expected 'cancel' or 'flag'")

        def declare(function: _F) -> _F:
            shown = name or name_of(function)
            seconds = self._timeout if timeout is None else timeout
            most = self._concurrency if concurrency is None else concurrency
            check_numbers(shown, seconds, most)
            signature = read_signature(function)
            if request is not None:
                check_request_type(shown, request)
            for type_ in types:
                handler = Handler(
                    function,
                    name=shown,
                    type=type_,
                    action=action,
                    provider=self.provider,
                    request=signature.request if request is None else request,
                    backend=choose_backend(function, backend, self._backend),
                    timeout=float(seconds),
                    concurrency=most,
                    on_cancel=on_cancel,
                    takes_context=signature.takes_context,
                    takes_request=signature.takes_request,
                )
                if (other := self._handlers.get(handler.subject)) is not None:
                    raise ValueError(f"{handler.subject} has a handler already: {other.name}")
                self._handlers[handler.subject] = handler
            return function

        return declare

    # Running.

    async def run(  # noqa: ASYNC128 - the engine does
        self,
        url: str | None = None,
        *,
        bus: Bus | None = None,
        options: BusOptions | None = None,
        drain: float = DRAIN,
        signals: bool = True,
        beside: Sequence[Companion] = (),
        task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until SIGTERM, SIGINT or cancellation; then end in order.

        That means: nothing new is taken, what waits is answered ``the connector is stopping``, and what is
        begun has ``drain`` seconds. A second signal does not wait for it.

        Args:
            url: servers of the broker, separated by commas.
            bus: a bus that is open, instead of one of its own.
            options: servers and credentials, instead of ``url``.
            drain: seconds for what is begun to end.
            signals: whether signals end it; outside the main thread they never do.
            beside: what lives as long as it runs, such as service discovery.
            task_status: started when the broker has the subscriptions.

        Raises:
            ValueError: no handler is declared, or there is more than one broker.
            NotPermitted: the broker forbids a subscription to requests.
            UnsupportedServer: the broker refuses the credentials, or is too old.
        """
        if not self._handlers:
            raise ValueError("no handler is declared: decorate a function, as in @connectors.create('vpc')")
        if sum(one is not None for one in (url, bus, options)) > 1:
            raise ValueError("give one of url, bus and options")
        if bus is not None:
            await serve(self.engine(bus, drain), beside, task_status, signals=signals)
            return
        if options is None:
            servers = (DEFAULT_SERVER,) if url is None else parse_servers(url)
            options = BusOptions(servers, inbox_prefix=_INBOX, name=f"connectors {self.provider}")
        async with open_bus(options) as own:
            await serve(self.engine(own, drain), beside, task_status, signals=signals)

    def engine(self, bus: Bus, drain: float = DRAIN) -> Engine:
        """Return what runs the handlers on a bus."""
        return Engine(
            bus,
            self.handlers,
            self.store,
            self.instance,
            self.provider,
            queue=self.queue,
            drain=drain,
            workload=Workload(most_bytes=self._max_waiting_bytes),
        )

    # Trying out.

    def test(
        self,
        subject: str,
        body: Mapping[str, Any] | None = None,
        *,
        key: str = "",
        attempt: str = "",
        on_beat: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Run a handler for one request without a broker, and return its reply; see `test_async`.

        Raises:
            RuntimeError: it is called in a Trio program, where `test_async` is to be awaited.
        """
        if _in_trio():
            raise RuntimeError("within Trio say `await connectors.test_async(...)`")
        tried = partial(self.test_async, subject, body, key=key, attempt=attempt, on_beat=on_beat)
        return trio.run(tried)

    async def test_async(
        self,
        subject: str,
        body: Mapping[str, Any] | None = None,
        *,
        key: str = "",
        attempt: str = "",
        on_beat: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Run a handler for one request without a broker, and return its reply.

        It goes the way of every request: conversion, record, timeout, reply. Where the key is given, the
        record remembers it from test to test.

        Args:
            subject: subject of the request, such as ``vpc.create.aws``.
            body: the component; ids that it lacks are added.
            key: key of the component; by default another one each time.
            attempt: attempt id; by default another one each time.
            on_beat: function that is called with each heartbeat.

        Raises:
            ValueError: the subject has no handler.
        """
        if subject not in self._handlers:
            known = ", ".join(self._handlers) or "none"
            raise ValueError(f"{subject} has no handler; there are: {known}")
        trial = Trial(subject, body or {}, key=key, attempt=attempt, on_beat=on_beat)
        return await try_out(lambda bus: self.engine(bus, drain=0.0), trial)


_ACTIONS: Final = ("create", "update", "delete", "get", "find")


def _check_token(field: str, token: str) -> None:
    problem = token_problem(field, token)
    if problem is not None:
        raise ValueError(problem)


def _in_trio() -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
