"""``scheduler deploy`` as it is called: what it prints, what it writes, and what it never overwrites."""

import os
import stat
from pathlib import Path

import pytest

from scheduler import cli
from scheduler.deploy.files import KINDS, PRINTED_BY, Extras, Kind, public_files


def contents(folder: Path) -> dict[str, str]:
    """All files of a folder, with their texts."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_printed(capsys: pytest.CaptureFixture[str], kind: Kind) -> None:
    """One after another, each under its name, and no key among them; but for those of another command."""
    assert cli.main(["deploy", kind]) == 0
    out, err = capsys.readouterr()
    files = public_files(kind)
    shown = [
        f": printed by `{PRINTED_BY[name]}`\n" if name in PRINTED_BY else f"\n{text}"
        for name, text in files.items()
    ]
    assert out == "\n".join(f"# ---- {name}{text}" for name, text in zip(files, shown, strict=True))
    for name in PRINTED_BY.keys() & files.keys():
        assert cli.main(PRINTED_BY[name].split()[1:]) == 0
        assert capsys.readouterr().out == files[name]
    assert "--output FOLDER writes these" in err
    assert "SUA" not in out


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_written(capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: Kind) -> None:
    """As they are printed, and what is secret for nobody else."""
    folder = tmp_path / "new" / "deploy"
    assert cli.main(["deploy", kind, "--output", str(folder)]) == 0
    assert f"written: {folder}" in capsys.readouterr().err
    found = contents(folder)
    for name, text in public_files(kind).items():
        assert found[name] == text
    for name in found:
        private = not stat.S_IMODE((folder / name).stat().st_mode) & 0o077
        assert private is (name.startswith("keys/") or name == "broker.env"), name
    assert stat.S_IMODE((folder / "keys").stat().st_mode) == 0o700
    assert {"keys/scheduler.nk", "keys/operator.nk", "keys/route.password", ".gitignore"} <= set(found)


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_services_can_read_their_configuration(tmp_path: Path, mask: int) -> None:
    """As users of their own, also where somebody's mask would keep all others from reading it."""
    before = os.umask(mask)
    try:
        assert cli.main(["deploy", "compose", "--output", str(tmp_path / "deploy")]) == 0
    finally:
        os.umask(before)
    for name in public_files("compose"):
        assert stat.S_IMODE((tmp_path / "deploy" / name).stat().st_mode) == 0o644, name


def test_all_of_it_is_printed_without_any_private_key(capsys: pytest.CaptureFixture[str]) -> None:
    """Of certificates there is the script that makes them, of the page its place."""
    assert cli.main(["deploy", "compose", "--tls", "--page"]) == 0
    out, _ = capsys.readouterr()
    for text in public_files("compose", Extras(tls=True, page=True)).values():
        assert text.startswith(("{", "# Alert rules")) or text in out
    assert "PRIVATE KEY" not in out
    assert cli.main(["deploy", "nats", "--page"]) == 2
    assert "--page: brokers alone have no page" in capsys.readouterr().err


def test_whoever_wants_certificates_is_told_to_make_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Until they are there; keys and their token are for nobody else, and git ignores them."""
    words = ["deploy", "systemd", "--tls", "--page", "--output", str(tmp_path)]
    assert cli.main(words) == 0
    assert f"certificates.sh, run in {tmp_path}, makes the certificates" in capsys.readouterr().err
    token = tmp_path / "keys" / "page.token"
    assert len(token.read_text().strip()) >= 40
    assert not stat.S_IMODE(token.stat().st_mode) & 0o077
    assert (tmp_path / ".gitignore").read_text() == "/keys/\n/broker.env\n/certificates/\n"
    before = token.read_text()
    (tmp_path / "certificates").mkdir()
    assert cli.main([*words, "--force"]) == 0
    assert "makes the certificates" not in capsys.readouterr().err
    assert token.read_text() == before
    token.write_text("\n")
    assert cli.main([*words, "--force"]) == 2
    assert "page.token' is none" in capsys.readouterr().err


def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Where one file is there, none is written; it is named."""
    (tmp_path / "compose.yaml").write_text("mine")
    assert cli.main(["deploy", "compose", "--output", str(tmp_path)]) == 2
    assert "has compose.yaml already; --force overwrites" in capsys.readouterr().err
    assert contents(tmp_path) == {"compose.yaml": "mine"}


def test_force_overwrites_files_and_keeps_keys(tmp_path: Path) -> None:
    """A key that is there may be in use, and one that is missing is drawn."""
    assert cli.main(["deploy", "compose", "--output", str(tmp_path)]) == 0
    before = contents(tmp_path)
    (tmp_path / "compose.yaml").write_text("mine")
    (tmp_path / "keys" / "operator.nk").unlink()
    assert cli.main(["deploy", "compose", "--output", str(tmp_path), "--force"]) == 0
    after = contents(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"keys/operator.nk", "broker.env"}
    assert set(after) == set(before)


def test_keys_alone_are_taken_over(tmp_path: Path) -> None:
    """So one folder of keys serves several kinds of files."""
    assert cli.main(["deploy", "nats", "--output", str(tmp_path / "a")]) == 0
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "keys").rename(tmp_path / "b" / "keys")
    assert cli.main(["deploy", "systemd", "--output", str(tmp_path / "b")]) == 0
    keys = [
        {line for line in (tmp_path / name / "broker.env").read_text().splitlines() if "_NKEY=" in line}
        for name in ("a", "b")
    ]
    assert keys[0] == keys[1]


@pytest.mark.parametrize("content", [b"\xff", b"nonsense", b"", None])
def test_a_key_that_cannot_be_read_is_not_replaced(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes | None
) -> None:
    """It is named, and nothing is written."""
    path = tmp_path / "keys" / "scheduler.nk"
    path.parent.mkdir()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    assert cli.main(["deploy", "nats", "--output", str(tmp_path), "--force"]) == 2
    assert f"{str(path)!r}" in (err := capsys.readouterr().err)
    assert err.startswith("scheduler: --output: the key ")
    assert err.count("\n") == 1
    assert [one.name for one in tmp_path.iterdir()] == ["keys"]


def test_a_password_that_is_none_is_not_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It would be a part of URLs and of the brokers' configuration."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "route.password").write_text("a b@c")
    assert cli.main(["deploy", "nats", "--output", str(tmp_path)]) == 2
    assert "route.password' is none" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With the reason, as one line."""
    (tmp_path / "file").write_text("")
    assert cli.main(["deploy", "nats", "--output", str(tmp_path / "file")]) == 2
    assert "--output: " in (err := capsys.readouterr().err)
    assert err.count("\n") == 1


def test_force_alone_means_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a folder nothing is overwritten."""
    assert cli.main(["deploy", "nats", "--force"]) == 2
    assert "--force: nothing is overwritten" in capsys.readouterr().err
