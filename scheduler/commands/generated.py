"""Generated files of this package, made of its code and of the files that it ships; run, it writes them."""

import json
from importlib import resources
from pathlib import Path

from scheduler.commands.schema import schema_file
from scheduler.commands.settings_page import renewed
from scheduler.definition.schema import Schema, build_schema
from scheduler.deploy.files import Kind, public_files
from scheduler.plan.schema import reply_schema


def generated() -> dict[Path, str]:
    """Return the content that each of these files is to have, by path."""
    docs = Path(str(resources.files("scheduler"))) / "docs"
    page, fleet = docs / "settings.md", docs / "fleet.md"
    schemas = {"build": build_schema(), "reply": reply_schema()}
    return {
        page: renewed(page.read_text(encoding="utf-8")),
        fleet: _with_files(fleet.read_text(encoding="utf-8")),
        **{Path(str(schema_file(name))): _written(schema) for name, schema in schemas.items()},
    }


def _with_files(page: str) -> str:
    """Return a page whose blocks are the files that `scheduler deploy` writes."""
    shown: list[tuple[str, Kind, str]] = [
        ("ini", "systemd", "scheduler.service"),
        ("yaml", "kubernetes", "schedulers.yaml"),
    ]
    for language, kind, name in shown:
        head, _, rest = page.partition(f"```{language}\n")
        _, _, tail = rest.partition("```\n")
        page = f"{head}```{language}\n{public_files(kind)[name]}```\n{tail}"
    return page


def _written(schema: Schema) -> str:
    return json.dumps(schema, indent=2) + "\n"


def main() -> None:
    """Write the files."""
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
