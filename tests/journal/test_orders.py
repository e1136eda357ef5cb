"""Orders of operators: how they stand in a log, and what of them is kept."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from scheduler.errors import CarriedOut
from scheduler.journal.orders import MOST_ORDERS, Order, Orders
from scheduler.journal.records import (
    ORDERS_HEADER,
    Status,
    encode_order,
    headers_of,
    orders_header,
    read_headers,
    read_orders,
)

ORDERS = st.builds(
    Order,
    st.sampled_from(["cancel", "pause", "skip"]),
    st.floats(0, 4e9),
    st.text(max_size=120),
    user=st.text(max_size=40),
    claim=st.text(max_size=40),
    reason=st.text(max_size=60),
    id=st.text("abcxyz019-_", max_size=64),
)


@given(st.lists(ORDERS, max_size=2))
def test_an_order_comes_back_from_a_header(orders: list[Order]) -> None:
    """Whatever is in it: the header is printable ASCII, as brokers and clients want it."""
    header = orders_header(map(encode_order, orders))
    assert header.isascii()
    assert header.isprintable()
    assert read_orders({ORDERS_HEADER: header}) == orders


@pytest.mark.parametrize("letter", ["x", "ß", "\U0001f600", "\x00"])
def test_an_order_has_room_in_a_header(letter: str) -> None:
    """Two kilobytes at most: of a long reason in letters that take twelve bytes the beginning is kept."""
    order = Order("skip", 1.5, "c" * 512, user="u/v", claim=letter * 9_000, reason=letter * 1_000)
    encoded = encode_order(order)
    assert len(encoded) <= 2_048
    [kept] = read_orders({ORDERS_HEADER: f"[{encoded}]"})
    assert (kept.verb, kept.time, kept.component, kept.user) == ("skip", 1.5, "c" * 512, "u/v")
    assert order.reason.startswith(kept.reason)


@pytest.mark.parametrize("letter", ["x", "\U0001f600", "\x00"])
def test_an_order_has_room_whatever_names_are_long(letter: str) -> None:
    """A component's id may have any length that the settings allow: its beginning is kept."""
    order = Order("skip", 1.5, letter * 4_096, user=letter * 300, claim=letter * 300, reason="quota")
    order = replace(order, id="i" * 64)
    encoded = encode_order(order)
    assert len(encoded) <= 2_048
    [kept] = read_orders({ORDERS_HEADER: f"[{encoded}]"})
    assert kept.component
    assert kept.id == order.id
    assert order.component.startswith(kept.component)


def test_what_is_no_text_spoils_no_other_order() -> None:
    """Undecodable bytes of a command line come as lone surrogates."""
    orders = [Order("skip", 1.5, "a", reason="x\udcff"), Order("pause", 2.5)]
    found = read_orders({ORDERS_HEADER: orders_header(map(encode_order, orders))})
    assert [(one.verb, one.reason) for one in found] == [("skip", "x?"), ("pause", "")]


@pytest.mark.parametrize(
    ("header", "verbs"),
    [
        ("", []),
        ("no JSON", []),
        ("[" * 100_000, []),
        ('{"verb": "pause"}', []),
        ('[{"verb": "pause", "time": "x"}, {"verb": "resume", "approved": true}, {}]', ["resume"]),
    ],
)
def test_what_cannot_be_read_is_left_out(header: str, verbs: list[str]) -> None:
    """No build is left alone for that, and of another version what is known is read."""
    assert [order.verb for order in read_orders({ORDERS_HEADER: header})] == verbs


def test_earlier_versions_read_a_record_with_orders() -> None:
    """They look at the headers that they know, and at the record, which is as it was without the orders."""
    headers = headers_of("r1", Status.OPEN, 0)
    assert read_headers({**headers, ORDERS_HEADER: "[]"}) == read_headers(headers)


def test_who_gave_an_order() -> None:
    """The broker's word goes before a claim, which is marked as such."""
    assert Order("pause", 1, user="TEAM/anna", claim="bob").document() == {
        "verb": "pause",
        "time": 1,
        "by": "TEAM/anna",
        "vouched": True,
        "claim": "bob",
    }
    claimed = Order("skip", 1, "a", claim="bob", reason="done by hand").document()
    assert (claimed["by"], claimed["vouched"], claimed["component"]) == ("bob", False, "a")
    assert Order("pause", 1).document() == {"verb": "pause", "time": 1}
    json.dumps(claimed)


def test_the_last_orders_are_kept() -> None:
    """In memory, so many; all are counted."""
    orders = Orders()
    assert (list(orders), orders.last(), len(orders)) == ([], None, 0)
    for number in range(MOST_ORDERS + 5):
        orders.add(Order("pause" if number % 2 else "resume", number))
    assert (len(orders), orders.total) == (MOST_ORDERS, MOST_ORDERS + 5)
    assert next(iter(orders)).time == 5
    last = orders.last("pause")
    assert last is not None
    assert last.time == MOST_ORDERS + 3


def test_an_order_is_found_by_its_verb_and_id() -> None:
    """One without an id is not, nor is one that was dropped."""
    orders = Orders()
    assert orders.find("pause", "o1") is None
    for order in (Order("pause", 1.0), first := Order("pause", 2.0, id="o1"), Order("pause", 3.0, id="o2")):
        orders.add(order)
    assert orders.find("pause", "o1") is first
    assert orders.find("resume", "o1") is None
    assert orders.find("pause", "") is None
    with pytest.raises(CarriedOut) as caught:
        orders.check_new(Order("pause", 9.0, id="o1"))
    assert caught.value.time == 2.0
    orders.check_new(Order("pause"))
    orders.drop(first)
    orders.drop(first)
    assert orders.find("pause", "o1") is None
    assert (len(orders), orders.total) == (2, 2)
