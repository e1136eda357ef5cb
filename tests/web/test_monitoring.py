"""The dashboard and the alert rules that ship: each expression stands on what is exported."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import scheduler
from scheduler.cli import main
from scheduler.deploy.templates import monitoring_file
from scheduler.metrics.catalogue import METRICS, PROCESS, Sort

ALERTS = yaml.safe_load(monitoring_file("alerts").read_text())
DASHBOARD = json.loads(monitoring_file("dashboard").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
OF_THE_SCRAPE = {"instance", "job"}
"""Labels that Prometheus adds."""
WORDS = {"and", "or", "unless", "on", "by", "without", "ignoring", "bool", "offset"}
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_RANGE = re.compile(r"\[[^\]]*\]")
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_NAME = re.compile(r"([a-zA-Z_:][\w:]*)\s*(\(|\{[^}]*\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")


class Use(NamedTuple):
    """A metric in an expression, with the labels that select it."""

    name: str
    labels: frozenset[str]


def exported() -> dict[str, frozenset[str]]:
    """The labels of all series by name."""
    found: dict[str, frozenset[str]] = {name: frozenset() for name in ("up", *PROCESS)}
    for metric in METRICS:
        labels = frozenset(metric.labels)
        if metric.sort is Sort.HISTOGRAM:
            found |= {f"{metric.name}_sum": labels, f"{metric.name}_count": labels}
            found[f"{metric.name}_bucket"] = labels | {"le"}
        else:
            found[metric.name] = labels
    return found


EXPORTED = exported()


def uses(expression: str) -> tuple[list[Use], set[str]]:
    """The metrics of an expression, and the labels that it groups by."""
    plain = _RANGE.sub("", _TEXT.sub("", expression))
    groups = {name.strip() for found in _GROUPING.findall(plain) for name in found.split(",")}
    plain = _GROUPING.sub("", plain)
    found = [
        Use(name, frozenset(_MATCHER.findall(behind or "")))
        for name, behind in _NAME.findall(plain)
        if behind != "(" and name not in WORDS
    ]
    return found, groups


def expressions() -> Iterator[tuple[str, str]]:
    """All expressions, with where they stand."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()), ids=str)
def test_each_expression_stands_on_what_is_exported(where: str, expression: str) -> None:
    """Names, the labels that select, and those that group."""
    found, groups = uses(expression)
    assert found, where
    for use in found:
        assert use.name in EXPORTED, where
        assert use.labels <= EXPORTED[use.name] | OF_THE_SCRAPE, where
    assert groups <= frozenset().union(*(EXPORTED[use.name] for use in found)) | OF_THE_SCRAPE, where


def test_a_counter_is_only_used_as_a_rate() -> None:
    """It begins at 0 with each process."""
    for where, expression in expressions():
        for name in re.findall(r"\w+_(?:total|bucket|count|sum)\b", expression):
            assert re.search(rf"\b(?:rate|increase)\({name}\b", expression), where


def test_the_parser_finds_what_an_expression_is_made_of() -> None:
    """It is a small one; this is what it has to see."""
    found, groups = uses(
        'sum by (a, le) (rate(x_total{b="up{c=1}", d=~"e"}[5m])) > 0.5 * vector(1) and on (f) y'
    )
    assert found == [Use("x_total", frozenset({"b", "d"})), Use("y", frozenset())]
    assert groups == {"a", "le", "f"}


def test_each_metric_is_on_the_dashboard() -> None:
    """What is worth to be exported is worth to be seen."""
    shown = {use.name for panel in PANELS for target in panel["targets"] for use in uses(target["expr"])[0]}
    for metric in METRICS:
        assert any(name.startswith(metric.name) for name in shown), metric.name


def test_the_panels_neither_overlap_nor_share_an_id() -> None:
    """Each has a title and says what it shows."""
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not places & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["title"] and panel["description"] for panel in PANELS)


def test_each_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    """A severity, a summary of one line, and a cure."""
    for rule in RULES:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["alert"].startswith("Scheduler")
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("part", ["dashboard", "alerts"])
def test_a_command_prints_them(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Byte for byte as they ship."""
    assert main(["monitoring", part]) == 0
    assert capsys.readouterr().out == monitoring_file(part).read_text()


@pytest.fixture
def promtool() -> str:
    """The tool that ships with Prometheus."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip(
            "THE ALERT RULES ARE NOT TESTED BY PROMTOOL: there is none (Debian: apt install prometheus)"
        )
    return found


def test_the_alerts_fire_when_they_should(promtool: str, tmp_path: Path) -> None:
    """By promtool's own unit tests, each rule once, and some not."""
    rules = tmp_path / "rules.yml"
    rules.write_text(monitoring_file("alerts").read_text())
    tests = tmp_path / "tests.yml"
    tests.write_text((Path(__file__).parent / "alerts_test.yml").read_text().replace("RULES", str(rules)))
    for words in (["check", "rules", str(rules)], ["test", "rules", str(tests)]):
        done = subprocess.run([promtool, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_is_asked_for_every_alert() -> None:
    """A new rule needs its test, whether or not the tool is here."""
    text = (Path(__file__).parent / "alerts_test.yml").read_text()
    document: dict[str, Any] = yaml.safe_load(text)
    assert document["tests"]
    for rule in RULES:
        assert re.search(rf'alertname(?:: |="){rule["alert"]}\b', text), rule["alert"]


def test_the_documentation_lists_each_metric() -> None:
    """Name, type, labels and help text, as they are exported."""
    page = (Path(scheduler.__file__).parent / "docs" / "production.md").read_text()
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert f"| `{metric.name}` | {metric.sort.value} | {labels} | {metric.help} |\n" in page
    listed = re.findall(r"(?m)^\| `(scheduler_\w+)` \|", page)
    assert listed == [metric.name for metric in METRICS]


def test_no_two_metrics_are_one_family() -> None:
    """Without its ending a counter would be taken for a gauge of that name."""
    names = [metric.name.removesuffix("_total") for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all((metric.sort is Sort.COUNTER) == metric.name.endswith("_total") for metric in METRICS)


def test_no_label_is_a_build_or_a_component() -> None:
    """There are as many as somebody submits, and each would be kept by Prometheus."""
    labels = {label for metric in METRICS for label in metric.labels}
    assert not labels & {"build", "component", "id", "build_id", "component_id", "error"}
