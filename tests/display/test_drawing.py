"""Graphs as pictures: what is drawn, what is left out, and that no id is anything but text."""

import re
from html import unescape
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builds import build, change, prepare

from scheduler.client.counts import GATED, STATES
from scheduler.display.drawing import (
    MOST_NODES,
    Drawing,
    Node,
    around,
    collapsed,
    dot,
    drawing_of,
    drawing_of_build,
    mermaid,
    svg,
)
from scheduler.display.drawing.colours import colours_of
from scheduler.errors import InvalidDrawing
from scheduler.text import printable, shortened

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    'a"b', "a\nb", "</svg><script>alert(1)</script>", "<!--", "]]>", "&amp;", "&#34;", "a]\n  b", "end",
    "subgraph x", 'n0"]:::x', "%%{init: {}}%%", "style a:b#c;", "`code`", "\\", '\\"', "\\N",
    "\x00\x1b[2J", "\u202e", "\ud800", "classDef x fill:#f00;", "--> n1", "; rm", "{rank=same}",
    "c:\\new", "c:\\New", "$$x^2$$", "fa:fa-car", "brfa:fa-car",
    "x direction LR", "style::a<b", "1. a", "- a", "# a", "ﬂ°°34¶ß",
)  # fmt: skip
texts = st.sampled_from(HOSTILE) | st.text(max_size=30) | st.text('"\\<>&\n;#[]{}`-:%|()', max_size=12)


def line(*ids: str, mark: str = "create") -> Drawing:
    return Drawing("t", [Node(name, "vpc", mark) for name in ids], list(pairwise(range(len(ids)))))


@given(texts, texts, texts)
def test_in_svg_an_id_is_text(title: str, name: str, type_: str) -> None:
    """The document is well-formed, has one box for each node, and shows each id on one line."""
    root = ET.fromstring(
        svg(Drawing(title, [Node(name, type_, "create"), Node("b", "c", "update")], [(0, 1)]))
    )
    assert {one.tag for one in root.iter()} == {
        f"{SVG}{tag}" for tag in ("svg", "title", "defs", "marker", "path", "rect", "text", "g")
    }
    shown = [one.text or "" for one in root.iter(f"{SVG}text")]
    assert shortened(name, 40) in shown
    assert len([one for one in root.iter(f"{SVG}g") if one.find(f"{SVG}title") is not None]) == 2


_STRING = r'"((?:[^"\\\n]|\\.)*)"'


@given(texts, texts, texts)
def test_in_dot_an_id_is_text(title: str, name: str, type_: str) -> None:
    """Without its quoted strings nothing of an id is left; in them it reads as it was."""
    written = dot(Drawing(title, [Node(name, type_, "create")], [], note=title))
    lines = written.splitlines()
    assert re.fullmatch(rf"  label={_STRING}; labelloc=t; fontname=Helvetica;", lines[1])
    found = re.fullmatch(
        rf'  n0 \[label={_STRING}, tooltip={_STRING}, color="#\w+", fillcolor="#\w+"\];', lines[-2]
    )
    assert found is not None
    assert unescape(re.sub(r"\\(.)", r"\1", found[2])) == printable(name)
    assert len(lines) == 7 + bool(printable(title))


_MERMAID_NAMES = {"quot": '"', "amp": "&", "lt": "<", "gt": ">"}
_ENTITY = re.compile(r"#(\w+);")
_JOINT = "\u200b"


def resolved(label: str) -> str:
    """A label as Mermaid has it once entities are resolved, which is before it looks for anything else."""
    return _ENTITY.sub(lambda one: _MERMAID_NAMES.get(one[1]) or chr(int(one[1])), label)


@given(texts, texts, texts)
def test_in_mermaid_an_id_is_text(title: str, name: str, type_: str) -> None:
    """In quotes nothing is syntax, neither before entities are resolved nor after; it reads as it was."""
    written = mermaid(
        Drawing(title, [Node(name, type_, "create"), Node("b", "c", "create")], [(0, 1)], note=title)
    )
    lines = [one for one in written.splitlines() if not one.startswith("  %% ")]
    assert lines[0] == "flowchart LR"
    found = re.fullmatch(r'  n0\["([^"]*)<br/>([^"]*)"\]:::mcreate', lines[1])
    assert found is not None
    for label in found.groups():
        assert not re.search(r'["`<>&%{}]|direction\s', label)
        assert "#" not in _ENTITY.sub("", label)
        # https://github.com/mermaid-js/mermaid: a line break, a formula, an icon, a list
        assert not re.search(r"\\[nN]|\$\$|fa\w?:fa-|^(\d+[.)]|[-+*]|#+)\s", resolved(label))
    # From such a line Mermaid takes the last semicolon.
    assert not re.search(r"(style|classDef).*:\S*#.*;", lines[1])
    assert resolved(found[1]).replace(_JOINT, "") == shortened(name, 40).replace(_JOINT, "")
    assert lines[3:] == ["  n0 --> n1", "  classDef mcreate fill:#e3f5ef,stroke:#009e73,color:#1f2937"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("vpc::test-vpc", "vpc::test-vpc"),
        ("internet_gateway::a.b/c@d", "internet_gateway::a.b/c@d"),
        ("vm::(1) [x] a;b|c=d, ü", "vm::(1) [x] a;b|c=d, ü"),
        ("c:\\new", "c:\\#8203;new"),
        ("c:\\New", "c:\\#8203;New"),
        ("$$x$$", "$#8203;$x$#8203;$"),
        ("direction LR", "direction#32;LR"),
        ('"`*a*`"', "#quot;#96;*a*#96;#quot;"),
    ],
)
def test_in_mermaid_only_what_must_be_is_escaped(name: str, label: str) -> None:
    """What people write into ids is readable in the text, too."""
    assert f'"{label}<br/>' in mermaid(line(name, mark="create"))


@pytest.mark.parametrize("write", [dot, mermaid, svg])
def test_a_state_is_told_in_words_too(write: Any) -> None:
    """Who sees no colours can read it."""
    for state in STATES:
        assert state in write(line("a", mark=state)).partition("classDef")[0]
        assert state in write(line("vpc::a", mark=state)).partition("classDef")[0]


@pytest.mark.parametrize("write", [dot, mermaid, svg])
def test_long_ids_that_differ_at_their_end_differ_in_the_picture(write: Any) -> None:
    """A label is cut in the middle."""
    ids = [f"vpc::very-long-name-of-something-in-europe-node-{number}" for number in (17, 18)]
    written = write(line(*ids)).replace(": create</title>", "")
    for number in (17, 18):
        assert f"vpc::very-long-name-…g-in-europe-node-{number}" in written


@pytest.mark.parametrize("write", [dot, svg])
def test_an_error_is_in_the_tooltip(write: Any) -> None:
    """As the scheduler says it, on one line and escaped, a login in an URL taken out."""
    answer = [
        {
            "id": "vpc::a",
            "subject": "vpc.create.aws",
            "state": "errored",
            "error": "no <quota>\nat http://u:pw@x/",
        }
    ]
    written = unescape(write(drawing_of({}, answer)))
    assert "no <quota> at http://***@x/" in written
    assert "pw" not in written


@pytest.mark.parametrize("write", [dot, mermaid, svg])
def test_nothing_can_be_drawn(write: Any) -> None:
    """A build without changes is an empty picture."""
    assert write(Drawing("t", [], []))


def test_colours_differ_between_all_states() -> None:
    """And between all actions."""
    actions = ("create", "update", "delete", "get", "find", "none", "approve")
    for marks in ((*STATES, GATED), actions):
        assert len({colours_of(mark) for mark in marks}) == len(marks)


def test_svg_says_what_is_beyond_it() -> None:
    """More nodes than can be laid out in a moment are refused."""
    with pytest.raises(InvalidDrawing, match="at most 500"):
        svg(line(*map(str, range(MOST_NODES + 1))))


def test_svg_draws_as_many_as_it_says() -> None:
    """The largest graph has all of its boxes and edges, inside the picture."""
    root = ET.fromstring(svg(line(*map(str, range(MOST_NODES)))))
    assert (
        len([one for one in root.iter(f"{SVG}path") if one.get("d", "").startswith("M")])
        == MOST_NODES - 1 + 1
    )


def test_the_legend_counts_components() -> None:
    """Each mark once, with the number of components of which it is told."""
    drawing = Drawing("t", [Node("3 x vpc", "vpc", "create", 3), Node("a", "vpc", "update")], [])
    assert ">create 3<" in svg(drawing)
    assert ">update 1<" in svg(drawing)


def test_a_build_is_drawn_with_its_actions() -> None:
    """Edges that references imply are there, what is completed says so."""
    prepared = prepare(
        build(
            change("vpc::a", "update", id="", _state="completed"),
            change("net::a", vpc="{{ components['vpc::b'].id }}"),
            change("vpc::b", "none", id=""),
            edges=[("vpc::a", "net::a"), ("start", "vpc::a")],
        )
    )
    drawing = drawing_of_build(prepared.build, prepared.graph)
    assert [(node.id, node.type, node.mark) for node in drawing.nodes] == [
        ("vpc::a", "vpc", "completed"),
        ("net::a", "net", "create"),
        ("vpc::b", "vpc", "none"),
    ]
    assert sorted(drawing.edges) == [(0, 1), (2, 1)]


def test_a_running_build_is_drawn_with_its_states() -> None:
    """As a scheduler's answer says; what cannot be understood of it is passed over."""
    components: list[dict[str, Any]] = [
        {"id": "vpc::a", "subject": "vpc.create.aws", "state": "completed", "needs": []},
        {
            "id": "net::a",
            "subject": "net.create.aws",
            "state": "running",
            "needs": ["vpc::a", "gone", "net::a", 7],
        },
        {"id": "net::a", "subject": "net.create.aws", "state": "waiting", "needs": []},
        {"id": "net::b", "subject": 5, "state": "<b>", "needs": "vpc::a"},
    ]
    drawing = drawing_of({"id": "b1", "action": "build.create", "status": "running"}, components)
    assert drawing.title == "build.create b1 running"
    assert [(node.id, node.mark) for node in drawing.nodes] == [
        ("vpc::a", "completed"),
        ("net::a", "running"),
        ("net::b", "unknown"),
    ]
    assert drawing.edges == [(0, 1)]


def test_the_neighbourhood_of_a_component() -> None:
    """What it depends on and what depends on it, so many edges away; not the siblings of either."""
    drawing = Drawing(
        "t", [Node(name, "vpc", "create") for name in "abcdx"], [(0, 1), (1, 2), (2, 3), (0, 4)]
    )
    part = around(drawing, "b", 1)
    assert part is not None
    assert [node.id for node in part.nodes] == ["a", "b", "c"]
    assert part.edges == [(0, 1), (1, 2)]
    assert "3 of 5" in part.note
    assert around(drawing, "z", 1) is None


def layered(layers: int, width: int) -> Drawing:
    nodes = [
        Node(f"{layer}-{one}", "vpc" if one % 2 else "net", "create")
        for layer in range(layers)
        for one in range(width)
    ]
    edges = [
        ((layer - 1) * width + one, layer * width + one) for layer in range(1, layers) for one in range(width)
    ]
    return Drawing("t", nodes, edges)


def test_a_small_graph_is_drawn_whole() -> None:
    """Nothing is put together below the bounds."""
    drawing = layered(2, 3)
    assert collapsed(drawing, nodes=6, edges=3) is drawing


def test_a_large_graph_is_drawn_by_type_and_wave() -> None:
    """Components of one type and wave are one node, which says how many they are."""
    found = collapsed(layered(3, 10), nodes=6, edges=100)
    assert found is not None
    assert [(node.id, node.count) for node in found.nodes] == [("5 x net", 5), ("5 x vpc", 5)] * 3
    assert found.edges == [(0, 2), (1, 3), (2, 4), (3, 5)]
    assert "by type and wave" in found.note


def test_a_long_graph_is_drawn_by_type() -> None:
    """Where waves are too many, types alone."""
    found = collapsed(layered(100, 2), nodes=10, edges=100)
    assert found is not None
    assert [(node.id, node.count) for node in found.nodes] == [("100 x net", 100), ("100 x vpc", 100)]


def test_a_graph_of_too_many_types_cannot_be_drawn_small() -> None:
    """Then only a part of it can be."""
    drawing = Drawing("t", [Node(str(one), f"t{one}", "create") for one in range(20)], [])
    assert collapsed(drawing, nodes=10, edges=10) is None


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "check", [test_in_svg_an_id_is_text, test_in_dot_an_id_is_text, test_in_mermaid_an_id_is_text]
)
def test_each_known_attack_is_text(check: Any, name: str) -> None:
    """As title, id and type, in each format."""
    check.hypothesis.inner_test(name, name, name)
