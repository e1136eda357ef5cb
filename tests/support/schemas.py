"""Whether a document fits a JSON Schema, and where it does not."""

from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import ValidationError, best_match  # type: ignore[import-untyped]


class Checker:
    """A schema as a program uses it that knows nothing else of builds."""

    def __init__(self, schema: dict[str, Any]) -> None:
        Draft202012Validator.check_schema(schema)
        self._validator = Draft202012Validator(schema)

    def fits(self, document: object) -> bool:
        found: bool = self._validator.is_valid(document)
        return found

    def place(self, document: object) -> str:
        """Where the mistake is that the document has, as `scheduler validate` names places."""
        error: ValidationError = best_match(self._validator.iter_errors(document))
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        return place.removeprefix(".")
