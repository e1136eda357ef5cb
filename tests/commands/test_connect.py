"""`scheduler connect`: what it loads, and what it says where it cannot."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler import cli
from scheduler.commands.connect import load

Captured = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]
GOOD = """
from scheduler.connectors import Connectors

connectors = Connectors(provider="aws")
empty = Connectors(provider="gcp")
number = 5


@connectors.create("vpc")
def create(request):
    return request
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with modules that are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "bare.py").write_text("pass")
    (tmp_path / "broken.py").write_text("def f():\n    return 1 / 0\n\n\nf()\n")
    (tmp_path / "lacking.py").write_text("import no_such_library\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"mine", "bare", "broken", "lacking", "package"}:
            del sys.modules[name]


def test_the_garbage_of_connectors_is_collected_as_usual(folder: Path) -> None:
    """Unlike the scheduler's own code, that of others may leave cycles behind."""
    (folder / "mine.py").write_text(
        GOOD
        + "\n\nimport gc, os\n\nasync def run(**_):\n    os.write(1, repr(gc.get_threshold()).encode())\n"
        "\n\nconnectors.run = run\n"
    )
    command = [
        sys.executable,
        "-m",
        "scheduler",
        "connect",
        "mine:connectors",
        "--nats-url",
        "nats://127.0.0.1:1",
    ]
    usual = [sys.executable, "-c", "import gc; print(gc.get_threshold(), end='')"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    outputs = [
        subprocess.run(one, capture_output=True, check=True, cwd=folder, env=variables).stdout
        for one in (command, usual)
    ]
    assert outputs[0] == outputs[1]


@pytest.mark.usefixtures("folder")
def test_a_module_is_found_in_the_working_directory() -> None:
    """Which Python does not search by itself for a command."""
    found = load("mine", "connectors")
    assert found is not None
    assert [handler.subject for handler in found.handlers] == ["vpc.create.aws"]


def test_a_module_may_be_in_a_package(folder: Path) -> None:
    """Named with dots."""
    (folder / "package").mkdir()
    (folder / "package" / "mine.py").write_text(GOOD)
    assert load("package.mine", "connectors") is not None


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["mine"], "'mine' is no module with an attribute, such as my.module:connectors"),
        (["mine:"], "is no module with an attribute"),
        (["mine:a.b"], "is no module with an attribute"),
        (["mine.py:connectors"], "'mine.py:connectors' is a file; name the module"),
        (["./mine:connectors"], "is a file; name the module"),
        (["nowhere:connectors"], "there is no module 'nowhere', neither in "),
        (["mine.other:connectors"], "there is no module 'mine.other'"),
        (["mine:conectors"], "mine has no 'conectors'; did you mean mine:connectors?"),
        (
            ["bare:connectors"],
            "bare has no 'connectors': write `connectors = Connectors(provider=...)` there",
        ),
        (["mine:number"], "mine:number is of type int, and no Connectors; did you mean mine:"),
        (["mine:empty"], "mine:empty has no handler: decorate a function, as in @empty.create('vpc')"),
        (
            ["mine:connectors", "--store", "mongo"],
            "--store: 'mongo' is none of sqlite:PATH, kv:BUCKET or memory",
        ),
        (["mine:connectors", "--store", "sqlite:"], "--store: 'sqlite:' is none of"),
        (["mine:connectors", "--store", "kv:a.b"], "--store: "),
        (["mine:connectors", "--drain", "long"], "--drain: 'long' is not a duration"),
    ],
)
def test_what_cannot_be_loaded_is_named_in_one_line(capsys: Captured, tokens: list[str], words: str) -> None:
    """With what is there instead, where that is known."""
    assert cli.main(["connect", *tokens, "--nats-url", "nats://127.0.0.1:1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("scheduler: ")
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("module", "place", "words"),
    [
        ("broken", 'broken.py", line 2, in f', "the module broken cannot be loaded: ZeroDivisionError"),
        ("lacking", 'lacking.py", line 1', "the module lacking cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_an_error_of_the_module_is_shown_with_its_place(
    capsys: Captured, module: str, place: str, words: str
) -> None:
    """The traceback is the module's, without ours."""
    assert cli.main(["connect", f"{module}:connectors", "--nats-url", "nats://127.0.0.1:1"]) == 1
    said = capsys.readouterr().err
    assert place in said
    assert words in said
    assert "scheduler/commands" not in said
    assert "importlib" not in said
