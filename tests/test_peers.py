"""The benchmark of peers gives all the same graph, and shows medians, or what is missing."""

from benchmarks import builds
from benchmarks.peers.measuring import graph_of
from benchmarks.peers.results import Peer, Run, table
from scheduler.local.generate import Shape


def test_a_peer_is_shown_by_its_medians() -> None:
    runs = Run(2.0, 0.2, 1.0), Run(1.0, 0.1, 0.5), Run(10.0, 3.0, 9.0)
    peer = Peer("peer 1.0", "nothing", 1_000, runs)
    assert (peer.rate, peer.scheduler, peer.everything) == (500.0, 0.2e-3, 1e-3)
    _, line, persisted = table([peer]).splitlines()
    assert line.split() == ["peer", "1.0,", "1,000", "500", "200", "1,000"]
    assert persisted.strip() == "persisted: nothing"


def test_a_peer_that_is_missing_is_named_with_the_reason_in_80_columns() -> None:
    shown = table([Peer("peer", "nothing", 1_000, missing="there is no server: " + "very " * 20 + "sorry")])
    assert "peer, 1,000: missing: there is no server" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_the_graph_of_a_peer_is_that_of_the_build_in_an_order_that_works() -> None:
    build = builds.make(Shape.LAYERED, 100)
    done: set[str] = set()
    for name, needs in (graph := graph_of(build)).items():
        assert done.issuperset(needs)
        done.add(name)
    assert list(graph) == [change["_component_id"] for change in build["changes"]]
    inner = [edge for edge in build["edges"] if edge["source"] in graph and edge["destination"] in graph]
    assert sum(len(needs) for needs in graph.values()) == len(inner) > 100
