"""Writes the README's table of settings from consumer/rehome_consumer/settings.py; with --check only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic_core import PydanticUndefined

from rehome_consumer.settings import Settings

BEGIN = "<!-- settings:begin (written by scripts/settings_table.py, checked by a test) -->"
END = "<!-- settings:end -->"


def table() -> str:
    """The table as Markdown."""
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        variable = "DOCKER_HOST" if name == "docker_host" else f"REHOME_{name.upper()}"
        if field.default is PydanticUndefined:
            default = "" if field.default_factory else "**needed**"
        else:
            default = (
                ""
                if field.default is None
                else f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
            )
        lines.append(f"| `{variable}` | {default} | {field.description} |")
    return "\n".join(lines)


def main() -> int:
    """Write, or compare."""
    readme = Path(__file__).parent.parent / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    new = f"{head}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"
    if "--check" in sys.argv:
        if new != text:
            print(
                "README.md: the table of settings is out of date; run scripts/settings_table.py",
                file=sys.stderr,
            )
        return int(new != text)
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
