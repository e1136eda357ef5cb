"""The files of this package that are made of its code; run as a module, it writes them."""

from importlib import resources
from pathlib import Path

from scheduler.commands.settings_page import renewed


def generated() -> dict[Path, str]:
    """What each of these files is to hold, by its path."""
    root = Path(str(resources.files("scheduler")))
    page = root / "docs" / "settings.md"
    return {page: renewed(page.read_text(encoding="utf-8"))}


def main() -> None:
    """Write the files."""
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
