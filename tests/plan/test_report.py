"""The report as a document and as JSON text."""

from typing import Any

import pytest
from attrs import evolve

from scheduler.definition.model import Edge
from scheduler.definition.strictjson import Raw, decode, encode
from scheduler.plan.report import Report

FIELDS = {
    "zeta": 1,
    "id": "b",
    "name": "n",
    "action": "build.create",
    "error": "old",
}
EDGES = [Edge("a", "b", 1), Edge("b", "end"), Edge("b", "c", None, {"x": 10**40})]


def made(error: str | None, components: int = 0, changes: int = 0) -> Report:
    def item(number: int) -> dict[str, Any]:
        return {"_component_id": f"ü{number}", "_state": "completed", "n": 10**40 + number}

    existing, done = [*map(item, range(components))], [*map(item, range(changes))]
    states = {"completed": changes} if changes else {}
    return Report("build.create", error, FIELDS, existing, done, EDGES, states)


def document(report: Report) -> dict[str, Any]:
    """A report as its receiver reads it."""
    read: dict[str, Any] = decode(b"".join(report.chunks()))
    return read


@pytest.mark.parametrize("error", [None, "a: broken", 'quotes " and\nlines'])
@pytest.mark.parametrize(
    ("components", "changes"), [(0, 0), (1, 0), (0, 1), (199, 200), (201, 401), (600, 1)]
)
def test_the_chunks_are_the_document(error: str | None, components: int, changes: int) -> None:
    """The pieces together are the report as one JSON object, with every digit."""
    report = made(error, components, changes)
    text = b"".join(report.chunks())
    read = decode(text)
    assert text == encode(read)
    assert read["components"] == report.components
    assert read["changes"] == report.changes
    assert read["edges"] == [
        {"source": "a", "destination": "b", "length": 1},
        {"source": "b", "destination": "end"},
        {"source": "b", "destination": "c", "x": 10**40},
    ]


def test_what_was_not_touched_is_copied() -> None:
    """A change that nothing was done with is JSON text already, and stands in the report as it is."""
    text = b'{"_component_id":"a","n":1.0}'
    report = Report("build.create", "x", FIELDS, [], [Raw(text)], [], {"waiting": 1})
    assert text in b"".join(report.chunks())


def test_no_empty_list_is_added() -> None:
    """A list that the build did not have, or that was null, is so in the report while nothing is in it."""
    report = Report("build.create", None, {"id": "b", "edges": None, "changes": None}, [], [], [], {})
    assert document(report) == {"id": "b", "edges": None, "changes": None, "components": []}
    report = evolve(report, absent=frozenset({"components"}))
    assert document(report) == {"id": "b", "edges": None, "changes": None}
    report = evolve(report, components=[{"n": 1}], changes=[{"n": 2}])
    assert document(report) == {"id": "b", "edges": None, "components": [{"n": 1}], "changes": [{"n": 2}]}


def test_where_it_goes() -> None:
    """The subject is the action, and how it ended."""
    assert made(None).subject == "build.create.done"
    assert made("x").subject == "build.create.error"


def test_an_error_that_was_submitted_is_not_reported() -> None:
    """The top-level error is that of this run, or there is none; other fields are kept in order."""
    assert "error" not in document(made(None))
    assert document(made("new"))["error"] == "new"
    expected = ["zeta", "id", "name", "action", "components", "changes", "edges"]
    assert list(document(made(None))) == expected


@pytest.mark.parametrize("error", [None, "a: broken"])
def test_the_reduced_report(error: str | None) -> None:
    """What is sent in the place of too large a report names the limit, counts the states, and is small."""
    report = made(error, 1_000, 1_000)
    reduced = report.reduced(5_000_000, 1_048_576)
    assert len(reduced) < 1_000
    read = decode(reduced)
    text = "the report takes 5000000 bytes, over the server's max_payload of 1048576 bytes"
    assert read == {
        "id": "b",
        "name": "n",
        "action": "build.create",
        "error": text if error is None else f"{error}; {text}",
        "omitted": ["components", "changes", "edges"],
        "states": {"completed": 1_000},
    }


def test_the_reduced_report_is_small_whatever_the_build() -> None:
    """A long error and a long name are cut in the reduced report; a name that is no text is left out."""
    assert len(made("x" * 65_536).reduced(1, 1)) < 5_000
    for name in ("x" * 65_536, ["x"] * 65_536):
        report = Report("build.create", None, {**FIELDS, "name": name}, [], [], [], {})
        assert len(report.reduced(1, 1)) < 2_000


@pytest.mark.parametrize("name", ["", "n", "\r\nX: y", "\U0001f600" * 500, 7, None])
def test_the_summary_fits_into_a_header(name: Any) -> None:
    """Whatever the build's name is: printable ASCII, and less than a kilobyte."""
    states = {"completed": 10**9, "errored": 10**9}
    report = Report(
        "build.create", "x", {**FIELDS, "name": name}, [], [], [], states, cancelled=True, accepted=1.8e9
    )
    text = report.summary()
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 800
    read = decode(text.encode())
    assert (read["status"], read["accepted"], read["counts"]["errored"]) == ("cancelled", 1.8e9, 10**9)
    assert read["name"] == (name[:40] if isinstance(name, str) else "")
