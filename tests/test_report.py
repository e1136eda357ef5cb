"""The report as a document and as JSON text."""

from typing import Any

import pytest

from scheduler.report import Report
from scheduler.strictjson import decode, encode

FIELDS = {
    "zeta": 1,
    "id": "b",
    "name": "n",
    "action": "build.create",
    "error": "old",
    "edges": [{"x": 10**40}],
}


def made(error: str | None, components: int = 0, changes: int = 0) -> Report:
    def item(number: int) -> dict[str, Any]:
        return {"_component_id": f"ü{number}", "_state": "completed", "n": 10**40 + number}

    return Report(
        "build.create", error, FIELDS, [*map(item, range(components))], [*map(item, range(changes))]
    )


@pytest.mark.parametrize("error", [None, "a: broken", 'quotes " and\nlines'])
@pytest.mark.parametrize(
    ("components", "changes"), [(0, 0), (1, 0), (0, 1), (199, 200), (201, 401), (600, 1)]
)
def test_the_chunks_are_the_document(error: str | None, components: int, changes: int) -> None:
    """The pieces together are the report as one JSON object, with every digit."""
    report = made(error, components, changes)
    text = b"".join(report.chunks())
    assert decode(text) == report.document()
    assert text == encode(report.document())
    assert len(report.document()["components"]) == components
    assert len(report.document()["changes"]) == changes


def test_where_it_goes() -> None:
    """The subject is the action, and how it ended."""
    assert made(None).subject == "build.create.done"
    assert made("x").subject == "build.create.error"


def test_an_error_that_was_submitted_is_not_reported() -> None:
    """The top-level error is that of this run, or there is none; other fields are kept in order."""
    assert "error" not in made(None).document()
    assert made("new").document()["error"] == "new"
    expected = ["zeta", "id", "name", "action", "edges", "components", "changes"]
    assert list(made(None).document()) == expected


@pytest.mark.parametrize("error", [None, "a: broken"])
def test_the_reduced_report(error: str | None) -> None:
    """What is sent in the place of too large a report names the limit, counts the states, and is small."""
    report = made(error, 1_000, 1_000)
    reduced = report.reduced(5_000_000, 1_048_576)
    assert len(reduced) < 1_000
    document = decode(reduced)
    text = "the report takes 5000000 bytes, over the server's max_payload of 1048576 bytes"
    assert document == {
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
        report = Report("build.create", None, {**FIELDS, "name": name}, [], [])
        assert len(report.reduced(1, 1)) < 2_000
