#!/usr/bin/env bash
# rustworkx: a graph that checks for cycles takes an edge from a node to itself.
#
# Version:     rustworkx 0.18.1
# Expectation: PyDiGraph(check_cycle=True) refuses each edge that closes a cycle, with DAGWouldCycle; the
#              shortest cycle is a node that depends on itself. What passes can be sorted.
# Behaviour:   a cycle of two is refused, and of one is taken, by add_edge() and add_edges_from() alike. From
#              then on is_directed_acyclic_graph() is false and topological_sort() raises DAGHasCycle, far
#              from the place that added the edge.
# Met by:      a builder of dependency graphs that leaves the check to the graph, and whose input names a
#              component among its own dependencies: a slip of the pen more common than a cycle of two.
# Seen on:     2026-11-30
# Output seen: subnet -> vpc:   DAGWouldCycle
#              vpc -> vpc:      taken
#              the graph is acyclic: False
#              topological_sort: DAGHasCycle
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q rustworkx==0.18.1
cat > "$folder/find.py" <<'PYTHON'
import sys

import rustworkx


def attempt(call, *arguments: object) -> str:
    """Return "taken", or the name of what is raised."""
    try:
        call(*arguments)
    except Exception as error:
        return type(error).__name__
    return "taken"


graph = rustworkx.PyDiGraph(check_cycle=True)
vpc, subnet = graph.add_nodes_from(["vpc", "subnet"])
graph.add_edge(vpc, subnet, None)
back = attempt(graph.add_edge, subnet, vpc, None)
own = attempt(graph.add_edge, vpc, vpc, None)
acyclic = rustworkx.is_directed_acyclic_graph(graph)
order = attempt(rustworkx.topological_sort, graph)
print("subnet -> vpc:  ", back)
print("vpc -> vpc:     ", own)
print("the graph is acyclic:", acyclic)
print("topological_sort:", order)
sys.exit(0 if (back, own, acyclic, order) == ("DAGWouldCycle", "taken", False, "DAGHasCycle") else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py"
