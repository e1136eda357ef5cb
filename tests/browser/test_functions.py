"""The functions of the scripts that know nothing of the page, in the engine that runs them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from integration.conftest import World
from playwright.sync_api import Browser
from support.brokers import nats_server

from browser.conftest import Place

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call(chromium: Browser) -> Iterator[Call]:
    """Evaluate an expression with the names of a module: ``call("format", "duration(1)")``."""
    with ExitStack() as stack:
        place = Place(World(stack, stack.enter_context(nats_server(jetstream=True))))
        context = chromium.new_context()
        stack.callback(context.close)
        page = context.new_page()
        page.goto(f"{place.url}api/openapi.json")

        def evaluate(module: str, expression: str) -> Any:
            # The page's policy allows no text to become code; what a debugger evaluates is not its business.
            script = f"async (url) => {{ with (await import(url)) return {expression}; }}"
            return page.evaluate(script, f"{place.url}static/{module}.js")

        yield evaluate


def test_texts_and_numbers_read_well(call: Call) -> None:
    """In units that people use; what nobody knows is no number."""
    seconds = {0: "0 ms", 0.25: "250 ms", 1.25: "1.3 s", 59: "59 s", 61: "1 min 01 s", 3_700: "1 h 01 min"}
    for value, told in seconds.items():
        assert call("format", f"duration({value})") == told
    assert call("format", "duration(null)") == "\N{EN DASH}"
    assert call("format", "duration(90_000)") == "1 d 01 h"
    assert call("format", "count(1234567)") == "1,234,567"
    assert call("format", "percent(9999, 10000)") == "99 %"
    assert call("format", "percent(1, 10000)") == "<1 %"
    assert call("format", "counted(1, 'build')") == "1 build"


def test_no_text_turns_the_line_around(call: Call) -> None:
    """Control characters are shown as what they are."""
    assert call("format", r"plain('a\u202eb\u0000c\nd')") == r"a\u202eb\u0000c d"
    assert call("format", "plain('x'.repeat(500), 10)") == "x" * 9 + "…"


def test_an_axis_has_round_steps(call: Call) -> None:
    """Of seconds, minutes and hours."""
    assert [call("format", f"niceStep({least})") for least in (0.03, 0.7, 7, 40, 700, 5_000)] == [
        0.05,
        1,
        10,
        60,
        900,
        7_200,
    ]


def test_a_zoom_keeps_the_point_under_the_pointer(call: Call) -> None:
    """And what was moved is moved back by the opposite."""
    view = "{kx: 2, ky: 3, tx: 40, ty: -10}"
    before = call("view", f"(([v]) => [(100 - v.tx) / v.kx, (70 - v.ty) / v.ky])([{view}])")
    after = call(
        "view", f"(([v]) => [(100 - v.tx) / v.kx, (70 - v.ty) / v.ky])([zoomed({view}, 1.7, 0.6, 100, 70)])"
    )
    assert after == pytest.approx(before)
    assert call("view", f"moved(moved({view}, 5, 7), -5, -7)") == {"kx": 2, "ky": 3, "tx": 40, "ty": -10}


def test_everything_fits(call: Call) -> None:
    """A drawing of any size is shown whole, in the middle."""
    fitted = call("view", "fitted({x0: -50, y0: 0, x1: 950, y1: 200}, 600, 400, 20)")
    assert -50 * fitted["kx"] + fitted["tx"] == pytest.approx(20)
    assert 950 * fitted["kx"] + fitted["tx"] == pytest.approx(580)
    assert 100 * fitted["ky"] + fitted["ty"] == pytest.approx(200)


def test_a_picture_is_where_the_view_has_it(call: Call) -> None:
    """A layer painted in one view, put between that and another, shows each point where the other has it."""
    found = call(
        "view",
        """((a, b) => { const m = between(a, b), x = 123, y = 45;
            return [(x * a.kx + a.tx) * m.kx + m.tx - (x * b.kx + b.tx),
                    (y * a.ky + a.ty) * m.ky + m.ty - (y * b.ky + b.ty)]; }
        )({kx: 0.5, ky: 0.7, tx: 10, ty: 20}, {kx: 2, ky: 1.1, tx: -30, ty: 5})""",
    )
    assert found == pytest.approx([0, 0], abs=1e-9)


def test_the_nearest_component_is_hit(call: Call) -> None:
    """And none where there is none."""
    grid = "new Grid([0, 10, 300], [0, 0, 50], 100)"
    assert call("view", f"{grid}.at(7, 1, 8, 8)") == 1
    assert call("view", f"{grid}.at(299, 52, 8, 8)") == 2
    assert call("view", f"{grid}.at(150, 25, 8, 8)") == -1


def test_what_is_small_is_folded(call: Call) -> None:
    """Names where there is room, one area where a component is less than a pixel or two."""
    assert [call("graph", f"detail({height})") for height in (0.5, 4, 20)] == ["fold", "mark", "card"]
    assert call("graph", "edgeOpacity(20_000)") == 0
    assert call("graph", "edgeOpacity(10)") > call("graph", "edgeOpacity(2_000)") > 0


def test_states_are_counted_by_fold(call: Call) -> None:
    """What changes moves from one count to another; what is no news does not."""
    layout = """{ids: ["a", "b", "c"], types: ["vpc"], actions: ["create"], type: [0, 0, 0],
        action: [0, 0, 0], wave: [0, 1, 1], x: [0.5, 2.5, 2.5], y: [0.5, 0.5, 1.5],
        edges: [0, 1, 0, 2], critical: [0, 1],
        width: 3, height: 2, folds: [{wave: 0, type: 0, x: 0, y: 0, width: 1, height: 1, members: [0]},
        {wave: 1, type: 0, x: 2, y: 0, width: 1, height: 2, members: [1, 2]}]}"""
    found = call(
        "model",
        f"""((model) => {{ model.setAll("rww"); const news = [model.set(1, "c"), model.set(1, "c")];
            return {{news, counts: [...model.folds[1].counts], of: [...model.dependents.of(0)],
                next: [model.next(0, "ArrowRight"), model.next(1, "ArrowDown"), model.next(0, "ArrowLeft")]}};
        }})(new Model({layout}))""",
    )
    assert found["news"] == [True, False]
    assert sum(found["counts"]) == 2
    assert found["of"] == [1, 2]
    assert found["next"] == [1, 2, -1]


def test_tries_to_connect_come_at_growing_pauses(call: Call) -> None:
    """Up to a bound, and spread."""
    assert [call("live", f"backoff({failed}, 1)") for failed in (0, 1, 2, 9)] == [0.5, 1, 2, 15]
    assert call("live", "backoff(2, 0)") == 1


def test_addresses_are_read(call: Call) -> None:
    """Whatever is in an id."""
    assert call("build", "parsed('builds/a%2Fb/components/c%3A%3Ad%2Fe', '')") == {
        "id": "a/b",
        "tab": "components",
        "component": "c::d/e",
    }
    assert call("build", "parsed('builds/x/nowhere', '?component=y')") == {
        "id": "x",
        "tab": "graph",
        "component": "y",
    }
