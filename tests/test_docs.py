"""The documentation: its links lead somewhere, and what it names is there."""

import configparser
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path

import attrs
import pytest
import yaml

from scheduler.cli import build_app
from scheduler.commands.catalogue import NAMES as COMMANDS
from scheduler.commands.groups import GROUPS
from scheduler.commands.variables import our_variables
from scheduler.definition.model import SETTINGS
from scheduler.definition.rules import OPTIONS
from scheduler.jetstream.streams import BUCKET, LOG, REPLIES, REPORTS
from scheduler.setting import flag_of

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "scheduler" / "docs"
TOPICS = {path.stem: path for path in sorted(DOCS.glob("*.md"))}
PAGES = [ROOT / "README.md", *TOPICS.values()]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
REFERENCE = re.compile(rf"\b({'|'.join(TOPICS).upper()}): \"([^\"\n]+)\"")
"""``WIRE: "Intake"`` in code names a section of `scheduler/docs/wire.md`."""
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z_-]*[a-z]")
VARIABLE = re.compile(r"\b(?:SCHEDULER|NATS)_[A-Z_]*[A-Z]\b")
OF_OTHERS = frozenset({
    # pip, pipx, pip-audit and nox
    "--require-hashes", "--no-deps", "--no-build-isolation", "--upgrade", "--spec",
    # nats-server and the nats command
    "--addr", "--jetstream", "--store_dir", "--log", "--subject", "--server", "--creds",
    # docker compose and step
    "--detach", "--profile", "--san", "--wait",
    # python -m integration.durable.takeovers
    "--brokers",
    # python -m simulation
    "--catch",
    # python -m benchmarks
    "--against", "--against-python", "--attacks", "--beats", "--check", "--only", "--peers", "--quick",
    "--repeat", "--shapes", "--sizes", "--stores", "--viewers",
})  # fmt: skip
STREAMS = {LOG, REPLIES, REPORTS, BUCKET}
MOST_LINES = 150


def named(path: Path) -> str:
    return path.name


def sections(path: Path) -> list[str]:
    """The headings of a page, in order."""
    return HEADING.findall(FENCE.sub("", path.read_text()))


def anchor(heading: str) -> str:
    """What a link to a section says behind the ``#``."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(path: Path) -> list[str]:
    """Where a page leads, within the project."""
    found: list[str] = LINK.findall(CODE.sub("", FENCE.sub("", path.read_text())))
    return [target for target in found if "://" not in target]


def fenced(path: Path, language: str) -> list[str]:
    """The blocks of a page in a language."""
    found: list[str] = re.findall(rf"(?ms)^```{language}\n(.*?)^```$", path.read_text())
    return found


def references() -> Iterator[tuple[str, str, str]]:
    """Every file that refers to a section of a document, with the document and the section."""
    for folder in ("scheduler", "tests", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name, section in REFERENCE.findall(path.read_text()):
                yield str(path.relative_to(ROOT)), name.lower(), section


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_link_leads_to_a_page_and_a_section(path: Path) -> None:
    """Files exist, and so do the headings that anchors name."""
    for target in links(path):
        file, _, section = target.partition("#")
        page = (path.parent / file).resolve() if file else path
        assert page.is_relative_to(ROOT), target
        assert page.is_file(), target
        if section:
            assert section in [anchor(heading) for heading in sections(page)], target


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_no_two_sections_of_a_page_have_one_anchor(path: Path) -> None:
    """Otherwise a link to one of them leads to the other."""
    anchors = [anchor(heading) for heading in sections(path)]
    assert len(set(anchors)) == len(anchors)


def test_every_reference_in_code_has_its_section() -> None:
    """What a docstring calls WIRE: "Intake" can be read there."""
    found = list(references())
    assert {name for _, name, _ in found} >= {"wire", "operating"}
    for path, name, section in found:
        assert section in sections(TOPICS[name]), f"{path}: {name}.md has no section {section!r}"


def test_the_readme_is_short() -> None:
    """At most 150 lines that fit in a window, and every document is linked from it."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 120
    linked = set(links(ROOT / "README.md"))
    assert linked >= {f"scheduler/docs/{path.name}" for path in TOPICS.values()}


def test_the_tests_are_run_as_the_readme_says() -> None:
    """The command that has to pass before anything lands is the one that people are told."""
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert command in (ROOT / "README.md").read_text().splitlines()


@pytest.mark.parametrize("path", TOPICS.values(), ids=named)
def test_a_document_is_a_topic_of_help(path: Path) -> None:
    """It begins with its title, then says in one sentence what it is about."""
    title, summary, *rest = path.read_text().split("\n\n")
    assert re.fullmatch(r"# [A-Z][\w ]+", title)
    assert re.fullmatch(r"[A-Z][^.]*\.", summary)
    assert rest
    assert sections(path).count(title.removeprefix("# ")) == 1


@pytest.mark.parametrize("path", TOPICS.values(), ids=named)
def test_a_document_can_be_read_in_a_terminal(path: Path) -> None:
    """Prose is wrapped at 100 columns, and what cannot be wrapped fits in 80 cells and an edge."""
    text = path.read_text()
    for line in FENCE.sub("", text).splitlines():
        assert len(line) <= (140 if line.startswith("|") else 100), line
    for block in FENCE.findall(text):
        assert max(map(len, block.splitlines())) <= 88, block


def test_the_documents_ship_with_the_package() -> None:
    """Where the package is installed, so are they."""
    shipped = {entry.name for entry in (resources.files("scheduler") / "docs").iterdir()}
    assert shipped >= {path.name for path in TOPICS.values()}
    assert len(TOPICS) >= 12


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_flag_that_is_named_exists(path: Path) -> None:
    """In any command of ours; flags of other programs are known here."""
    for flag in FLAG.findall(path.read_text()):
        assert flag in our_flags() | OF_OTHERS, flag


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_variable_that_is_named_exists(path: Path) -> None:
    """One that a command reads, that the server file asks for, or the name of a stream."""
    server = (ROOT / "scheduler" / "permissions" / "nats-server.conf").read_text()
    known = our_variables() | STREAMS | set(re.findall(r"\$(NATS_\w+)", server))
    for variable in VARIABLE.findall(path.read_text()):
        assert variable in known, variable


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_command_that_is_shown_exists(path: Path) -> None:
    """Lines that people may copy begin with a command of ours, or its flags."""
    for block in FENCE.findall(path.read_text()):
        for command in re.findall(r"(?m)^(?:\$ |\.venv/bin/|)scheduler ([a-z][\w-]*)", block):
            assert command in COMMANDS, command


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_files_that_are_shown_can_be_read(path: Path) -> None:
    """Manifests are YAML, and unit files have sections of assignments."""
    for text in fenced(path, "yaml"):
        assert all(isinstance(document, dict) for document in yaml.safe_load_all(text))
    for text in fenced(path, "ini"):
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(text)
        assert parser.sections()


def test_service_managers_wait_longer_than_the_grace() -> None:
    """Otherwise they kill a scheduler that awaits what is in flight."""
    (unit,), (manifests,) = fenced(TOPICS["fleet"], "ini"), fenced(TOPICS["fleet"], "yaml")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(unit)
    grace = float(re.findall(r"--grace (\d+)s", parser["Service"]["ExecStart"])[0])
    assert float(parser["Service"]["TimeoutStopSec"]) >= grace + 15
    pod = next(yaml.safe_load_all(manifests))["spec"]["template"]["spec"]
    arguments = pod["containers"][0]["args"]
    grace = float(arguments[arguments.index("--grace") + 1].removesuffix("s"))
    assert pod["terminationGracePeriodSeconds"] >= grace + 15


def test_every_setting_is_in_the_list_of_settings() -> None:
    """Whoever looks there finds all of them."""
    text = TOPICS["settings"].read_text()
    for group in GROUPS:
        for field in attrs.fields(group):
            assert f"`{flag_of(field.name)}`" in text, field.name


def test_every_field_that_speaks_to_the_scheduler_is_explained() -> None:
    """Those of a component, and those of a build's options."""
    text = TOPICS["builds"].read_text()
    for name in (*SETTINGS, *OPTIONS):
        assert f"| `{name}` |" in text, name


@cache
def our_flags() -> frozenset[str]:
    """Every flag of every command."""
    app = build_app()
    found = {"--help", "--help-all", "--version"}
    for name in COMMANDS:
        for argument in app[name].assemble_argument_collection():
            found.update(spelled for spelled in argument.names if spelled.startswith("--"))
    return frozenset(found)
