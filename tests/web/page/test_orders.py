"""Orders over HTTP: the way of all orders, with who gave them."""

from typing import Any

import pytest
from support.asking import ask
from support.fakes import Reply, change, document
from support.pages import TOKEN, Visited, of, visited
from trio.testing import wait_all_tasks_blocked

BEARER = {"authorization": f"Bearer {TOKEN}"}
ORDERS: dict[str, Any] = {"token": TOKEN, "orders": True}


async def give(page: Visited, headers: dict[str, str] | None = None, **order: Any) -> Any:
    return await page.client.post(
        of("b1", "orders"), json=order, headers=BEARER if headers is None else headers
    )


async def test_an_order_is_carried_out_and_on_record() -> None:
    """With who gave it, as they said."""
    async with visited(page=ORDERS) as page:
        answer = await give(page, order="pause", reason="lunch")
        assert answer.status_code == 200
        assert answer.json()["status"] == "paused"
        assert (await page.read(of("b1"), headers=BEARER))["paused"]
        [order] = (await ask(page.site, "history"))["orders"]
        assert (order["verb"], order["by"], order["vouched"], order["reason"]) == (
            "pause",
            "page",
            False,
            "lunch",
        )
        assert (await give(page, order="resume")).json()["status"] == "running"


async def test_a_user_of_a_proxy_is_vouched_for() -> None:
    """By the name that the proxy told; a browser needs to prove that the page is ours."""
    settings = {"user_header": "X-User", "trusted_proxies": ("127.0.0.1",), "orders": True}
    async with visited(page=settings) as page:
        session = (await page.client.get("/api/session", headers={"x-user": "ann"})).json()
        assert (session["user"], session["vouched"], session["orders"]) == ("ann", True, True)
        headers = {"x-user": "ann", "origin": str(page.client.base_url).rstrip("/")}
        refused = await give(page, headers, order="pause")
        assert (refused.status_code, refused.json()["error"]) == (403, "forbidden")
        answer = await give(page, {**headers, "x-scheduler-csrf": session["csrf"]}, order="pause")
        assert answer.status_code == 200
        [order] = (await ask(page.site, "history"))["orders"]
        assert (order["by"], order["vouched"]) == ("ann", True)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"x-user": "ann"}], ids=str)
async def test_without_a_token_an_order_is_refused(headers: dict[str, str]) -> None:
    """On this machine, too; and nothing happens to the build."""
    async with visited(page=ORDERS) as page:
        answer = await give(page, headers, order="cancel")
        assert answer.status_code in {401, 403}
        assert (await ask(page.site, "get"))["status"] == "running"
        assert (await ask(page.site, "history"))["orders"] == []


async def test_without_the_flag_an_order_is_refused() -> None:
    """Even with the token."""
    async with visited(page={"token": TOKEN}) as page:
        answer = await give(page, order="cancel")
        assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")


async def test_a_copy_of_an_order_is_carried_out_once() -> None:
    """A browser may send it again, where it got no answer."""
    async with visited(page=ORDERS) as page:
        first = await give(page, order="pause", key="k1")
        again = await give(page, order="pause", key="k1")
        assert first.json() == again.json()
        assert len((await ask(page.site, "history"))["orders"]) == 1


async def test_all_orders_are_given() -> None:
    """Each with its members."""
    value = document(["a", "b", change("g", action="approve"), change("h", action="approve")], policy=None)
    async with visited(value, page=ORDERS) as page:
        page.site.cloud.answer("a", Reply("errored", fields={"error": "busy"}))
        await wait_all_tasks_blocked(0.01)
        for order in (
            {"order": "approve", "component": "g"},
            {"order": "reject", "component": "h", "reason": "no"},
            {"order": "retry", "component": "a"},
            {"order": "skip", "component": "a", "output": {"vpc_aws_id": "vpc-1"}},
            {"order": "cancel", "now": True},
        ):
            answer = await give(page, **order)
            assert answer.status_code in {200, 409}, answer.text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b'{"order": "destroy"}', "order"),
        (b'{"order": "pause", "key": "a b"}', "key"),
        (b'{"order": "pause", "component": "a"}', "component: pause has no such member"),
        (b'{"order": "skip"}', "component"),
        (b"[" * 100_000, "body"),
        (b'{"order": "pause", "order": "cancel", "now": "yes"}', "now"),
    ],
    ids=["nothing", "a list", "another", "a key", "a member", "no component", "deep", "a type"],
)
async def test_what_is_no_order_is_refused(body: bytes, text: str) -> None:
    """And says which member it is."""
    async with visited(page=ORDERS) as page:
        headers = {**BEARER, "content-type": "application/json"}
        answer = await page.client.post(of("b1", "orders"), content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid")
        assert text in answer.json()["message"]


async def test_a_form_of_another_page_is_no_order() -> None:
    """A browser sends that without asking."""
    async with visited(page=ORDERS) as page:
        headers = {**BEARER, "content-type": "text/plain"}
        answer = await page.client.post(of("b1", "orders"), content=b'{"order": "pause"}', headers=headers)
        assert answer.status_code == 400


async def test_a_large_order_is_refused_unread() -> None:
    """Its length says so."""
    async with visited(page=ORDERS) as page:
        answer = await give(page, order="skip", component="a", output={"x": "x" * 300_000})
        assert answer.status_code == 413


async def test_a_conflict_is_told_in_the_words_of_the_control_api() -> None:
    """With its code."""
    async with visited(page=ORDERS) as page:
        answer = await give(page, order="resume")
        assert answer.status_code in {200, 409}
        unknown = await page.client.post(of("none", "orders"), json={"order": "pause"}, headers=BEARER)
        assert (unknown.status_code, unknown.json()["error"]) == (404, "unknown")
