"""Files in YAML, ids, values: what the commands that read a build make of them."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.builds import build, change
from support.shell import scheduler

from scheduler import cli
from scheduler.commands.files import read_example

__all__ = ["scheduler"]

Captured = pytest.CaptureFixture[str]
Write = Callable[..., str]
ROOT = Path(__file__).parents[2]
YAML = """\
# A build in YAML
id: demo
name: Staging (EU)
options: {size: 2, tags: {env: test}}
changes:
  - &vpc
    _component_id: vpc::main
    _component: vpc
    _action: create
    _provider: aws
    size: "{{ build.options.size }}"
  - <<: *vpc
    _component_id: vpc::other
    env: $(options.tags.env)
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Puts a text into a file of the working directory, and gives its name."""
    monkeypatch.chdir(tmp_path)

    def put(text: str, name: str = "b.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return put


@pytest.fixture(autouse=True)
def _plain_environment(scheduler: Any) -> None:
    """No variables of ours, and no broker."""


PARTS = """\
id: parts
changes:
  - {_component_id: "vpc::a", _component: vpc, _action: create, _provider: aws}
  - {_component_id: "net::a", _component: network, _action: create, _provider: aws,
     vpc_id: "{{ components['vpc::a'].vpc_id }}"}
  - {_component_id: "net::b", _component: network, _action: create, _provider: aws}
edges: []
"""


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def planned(capsys: Captured, *arguments: str) -> Any:
    assert cli.main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", ["validate", "plan", "graph"])
@pytest.mark.parametrize("name", ["b.yaml", "b.yml", "b", "b.json"])
def test_a_build_may_be_yaml(capsys: Captured, write: Write, command: str, name: str) -> None:
    """By its name, or because it begins as no JSON does."""
    assert cli.main([command, f"./{write(YAML, name)}"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out


def test_json_in_a_file_called_yaml_is_json(capsys: Captured, write: Write) -> None:
    """It is read as fast as any other, and what is wrong with it is told as of YAML."""
    text = read_example("create").decode()
    assert cli.main(["validate", write(text)]) == 0
    assert cli.main(["validate", write("{")]) == 1
    assert "b.yaml:2:1: did not find expected node content" in capsys.readouterr().err


def test_a_build_in_yaml_comes_from_standard_input(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its problems have the line all the same."""
    type_in(monkeypatch, YAML.replace("create", "explode", 1))
    assert cli.main(["validate", "-"]) == 1
    assert "  -:9: changes[0]._action: 'explode' is none of" in capsys.readouterr().err


def test_every_problem_has_its_line(capsys: Captured, write: Write) -> None:
    """Also what was merged in: its line is that of the anchor, where the mistake is."""
    text = YAML.replace("create", "explode").replace("options.tags.env)", "options.tag.env)")
    assert cli.main(["validate", write(text)]) == 1
    _, first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("  b.yaml:9: changes[0]._action: 'explode'")
    assert second.startswith("  b.yaml:9: changes[1]._action: 'explode'")
    assert cli.main(["validate", write(YAML.replace("tags.env)", "tag.env)"))]) == 1
    assert "  b.yaml:14: vpc::other.env: " in capsys.readouterr().err


def test_so_have_those_of_json(capsys: Captured, write: Write) -> None:
    """Problems and warnings."""
    document = build(change("vpc::a", "explode"), change("vpc::b"), edges=[("vpc::a", "nobody")])
    assert cli.main(["validate", write(json.dumps(document, indent=1), "b.json")]) == 1
    lines = json.dumps(document, indent=1).splitlines()
    for line in capsys.readouterr().err.splitlines()[1:]:
        number, place = re.findall(r"b\.json:([0-9]+): [a-z]+\[0\]\.(\w+): ", line)[0]
        assert f'"{place}"' in lines[int(number) - 1]
    document = build(change("vpc::a", _time_out=3))
    assert cli.main(["validate", write(json.dumps(document, indent=1), "b.json")]) == 0
    assert re.search(r"  b\.json:[0-9]+: vpc::a\._time_out: is unknown", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("id: b\nid: c\n", "b.yaml:2: the key 'id' stands in line 1 already"),
        ("id: b: c\n", "b.yaml:1:6: mapping values are not allowed in this context"),
        ("", "a build is a JSON object: this is empty"),
        ("- id: b\n", "a build is a JSON object: expected object, got list"),
    ],
)
def test_yaml_that_is_no_build_is_refused(capsys: Captured, write: Write, text: str, line: str) -> None:
    """With the place, in the way of all other problems."""
    assert cli.main(["validate", write(text)]) == 1
    assert capsys.readouterr().err == f"scheduler: b.yaml has 1 problem:\n  {line}\n"


def test_values_are_put_into_the_options(capsys: Captured, write: Write) -> None:
    """Files in their order, then single ones; the build's own stay where nothing is put over them."""
    name = write(YAML)
    first, second = (
        write("size: 3\ntags: {env: one}\n", "v.yaml"),
        write('{"tags": {"env": "two"}}', "v.json"),
    )
    assert cli.main(["run", name, "--values", first, "--values", second, "--set", "tags.x=1", "--help"]) == 0
    capsys.readouterr()
    from scheduler.commands.content_flags import ContentFlags  # noqa: PLC0415 - after the fixtures
    from scheduler.commands.sources import read_source  # noqa: PLC0415
    from scheduler.config import Settings  # noqa: PLC0415

    flags = ContentFlags(values=(first, second), set=("tags.x=1",), set_string=("size=4",))
    source = read_source(name, Settings(), None, flags)
    assert source is not None
    options = json.loads(source.data)["options"]
    assert options == {"size": "4", "tags": {"env": "two", "x": 1}}


def test_values_come_from_standard_input(
    capsys: Captured, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the build does: both cannot."""
    name = write(YAML)
    type_in(monkeypatch, "retry: {attempts: none}")
    assert cli.main(["validate", name, "--values", "-"]) == 1
    assert "  -:1: options.retry: attempts: " in capsys.readouterr().err
    assert cli.main(["validate", "-", "--values", "-"]) == 2
    assert capsys.readouterr().err == (
        "scheduler: standard input (-) can be read once: give the others as files\n"
    )


def test_empty_values_change_nothing(capsys: Captured, write: Write) -> None:
    """A file in which everything is commented out is no mistake."""
    assert cli.main(["validate", write(YAML), "--values", write("# nothing\n", "v.yaml")]) == 0
    assert cli.main(["validate", write(YAML), "--values", write("[1]", "v.yaml")]) == 1
    assert "v.yaml holds a list; values are an object, such as size: 3" in capsys.readouterr().err
    assert cli.main(["validate", write(YAML), "--values", write("{", "v.json")]) == 1
    assert "v.json has 1 problem:\n  line 1, column 2: it ends here" in capsys.readouterr().err
    assert cli.main(["validate", write(YAML), "--values", "gone.yaml"]) == 1
    assert "cannot read 'gone.yaml'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["validate", "plan", "graph"])
@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ("sise=3", "--set sise: nothing in the build reads it; did you mean 'size'?"),
        ("tags.en=3", "--set tags.en: nothing in the build reads it; did you mean 'tags.env'?"),
        ("on_eror=drain", "--set on_eror: nothing in the build reads it; did you mean 'on_error'?"),
        ("zone=hunter2", "--set zone: nothing in the build reads it"),
        ("size={1", "--set size: it is no JSON, and taken as a text"),
    ],
)
def test_a_value_that_nothing_reads_is_a_warning(
    capsys: Captured, write: Write, command: str, given: str, warning: str
) -> None:
    """With a name that is similar; the value is not shown, and the exit code stays 0."""
    assert cli.main([command, write(YAML), "--set", given]) == 0
    assert f"scheduler: warning: {warning}\n" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["size=3", "tags.env=x", "tags={}", "max_failures=3", "limits={}"])
def test_a_value_that_is_read_is_none(capsys: Captured, write: Write, given: str) -> None:
    """Neither is one that the scheduler itself reads."""
    text = YAML.replace("env: $(options.tags.env)", "env: \"{{ build.options.tags.env | default('x') }}\"")
    assert cli.main(["validate", write(text), "--set", given]) == 0
    assert capsys.readouterr().err == ""


def test_a_problem_names_the_flag_that_made_it(capsys: Captured, write: Write) -> None:
    """Neither line nor file has it."""
    assert cli.main(["validate", write(YAML), "--set", "retry.attempts=hunter"]) == 1
    assert "  --set retry.attempts: options.retry: attempts: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "size"], "--set: 'size' has no value"),
        (["--set-string", "size"], "--set-string: 'size' has no value"),
        (["--set", "size.x=1"], "--set: options.size is a number, and has no 'x'"),
        (["--id", "a b"], "--id: 'a b' is not 1 to 128 of"),
    ],
)
def test_a_wrong_flag_is_wrong_usage(capsys: Captured, write: Write, flags: list[str], message: str) -> None:
    """One line, and exit code 2."""
    assert cli.main(["validate", write(YAML), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_id_goes_before_that_of_the_file(capsys: Captured, write: Write) -> None:
    """Also where the file has none; `auto` is the file's id, or its name, with the time."""
    name, nameless = write(YAML), write(YAML.replace("id: demo\n", ""), "n.yaml")
    assert planned(capsys, name)["id"] == "demo"
    assert planned(capsys, name, "--id", "other")["id"] == "other"
    assert planned(capsys, nameless, "--id", "other")["id"] == "other"
    assert re.fullmatch(r"demo-[0-9]{8}-[0-9]{6}-\w{5}", planned(capsys, name, "--id", "auto")["id"])
    assert planned(capsys, nameless, "--id=auto")["id"].startswith("Staging-EU-2")
    assert cli.main(["validate", nameless]) == 1
    assert "  id: a build needs an id; it is missing (--id gives it one)\n" in capsys.readouterr().err


def test_a_build_of_the_scheduler_takes_no_values(capsys: Captured) -> None:
    """`graph` by a build's id shows what there is."""
    assert cli.main(["graph", "prod", "--set", "size=3"]) == 2
    assert "--set is for a build in a file, and there is no file 'prod'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["validate", "b.json"], ["plan", "b.json", "--set", "a=1"], ["run", "--help"], ["list", "--help"]],
)
def test_nobody_loads_yaml_who_needs_none(write: Write, arguments: list[str]) -> None:
    """Its parser takes as long to load as a small command takes in all."""
    write(read_example("create").decode(), "b.json")
    code = f"import sys; from scheduler.cli import main; main({arguments!r}); sys.exit('yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


# Parts.


def test_a_part_of_a_build_is_planned_and_drawn(write: Write, capsys: Captured) -> None:
    """A target comes with what it needs, also by a reference alone; what is left out is said."""
    name = write(PARTS)
    assert cli.main(["plan", name, "--target", "net::a", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["total"], found["left_out"]) == (2, ["net::b"])
    assert "left out: net::b (of 3 components)" in err
    assert cli.main(["graph", name, "--exclude", "*::a"]) == 0
    out, err = capsys.readouterr()
    assert "net::b" in out
    assert "vpc::a" not in out
    assert "left out: vpc::a, net::a (of 3 components)" in err


def test_what_is_needed_cannot_be_left_out(write: Write, capsys: Captured) -> None:
    """Every reason is listed, and nothing is done."""
    name = write(PARTS)
    for command in ("plan", "graph", "validate", "run"):
        assert cli.main([command, name, "--exclude", "vpc::a", "--exclude", "net::b"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "'net::a' needs 'vpc::a', which is excluded: keep that one, or exclude both" in err
    assert cli.main(["plan", name, "--target", "vpc::b"]) == 1
    assert "the build has no such component; did you mean 'vpc::a'?" in capsys.readouterr().err


def test_many_that_are_left_out_are_counted(write: Write, capsys: Captured) -> None:
    """The first few are named."""
    changes = [change(f"c{number}") for number in range(20)]
    name = write(json.dumps(build(*changes)), "b.json")
    assert cli.main(["validate", name, "--target", "c0"]) == 0
    out, err = capsys.readouterr()
    assert "left out: c1, c2, c3, c4, c5 and 14 more (of 20 components)" in err
    assert "1 component" in out
