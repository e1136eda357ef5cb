"""The page of a real process, as a program reads it: answers, and streams of events."""

import json
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

from integration.harness import JSON, Scheduler

OPENER = build_opener(ProxyHandler({}))
TOKEN = "0123456789abcdef01234567"


class Site:
    """The page of a scheduler, with or without its token."""

    def __init__(self, scheduler: Scheduler, token: str = "") -> None:
        self.headers = {"authorization": f"Bearer {token}"} if token else {}
        self.url: str = scheduler.await_log("the page is served")["address"]
        host, _, port = self.url.removeprefix("http://").rstrip("/").rpartition(":")
        self.address = host, int(port)

    def get(self, path: str, **body: Any) -> tuple[int, Any]:
        """Status and JSON of an answer; with a body it is an order."""
        data = json.dumps(body).encode() if body else None
        headers = {**self.headers, "content-type": "application/json"} if body else self.headers
        try:
            with OPENER.open(Request(f"{self.url}{path}", data, headers), timeout=30) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    def build(self, name: str, *rest: str) -> Any:
        """The answer to a question about a build, which must not be refused."""
        status, answer = self.get("/".join(["api/builds", quote(name, safe=""), *rest]))
        assert status == 200, answer
        return answer

    def stream(self, path: str) -> "Events":
        """The events of a stream."""
        return Events(self.address, path, self.headers)


class Events:
    """Events of a stream, read as they come."""

    def __init__(self, address: tuple[str, int], path: str, headers: Mapping[str, str]) -> None:
        self._connection = HTTPConnection(*address, timeout=30)
        self._connection.request("GET", path, headers=dict(headers))
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.close()
        self._connection.close()

    def next(self) -> tuple[str, JSON] | None:
        """The name and the data of the next event; None after the last one."""
        name = ""
        for line in self._answer:
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                return name, json.loads(line[6:])
        return None

    def until(self, name: str) -> JSON:
        """The data of the next event of this name."""
        while (event := self.next()) is not None:
            if event[0] == name:
                return event[1]
        raise AssertionError(f"the stream has ended before {name}")
