"""Do the documents name distributions that can be installed? `rehome` belongs to someone else."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Final

from tests.install.environment import require

if TYPE_CHECKING:
    from pathlib import Path

INSTALLABLE: Final = {"./events", "./consumer", "$REHOME/events", "pytest", "opensearch-py", "pika"}
_COMMAND: Final = re.compile(r"pip3? install ([^`\n#]+)")


def name_what_can_be_installed(root: Path) -> None:
    """Every `pip install` in README, docs and the distributions' READMEs."""
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("*/README.md")]
    extras = tomllib.loads((root / "consumer/pyproject.toml").read_text())["project"]["optional-dependencies"]
    installable = INSTALLABLE | {f"./consumer[{extra}]" for extra in extras}
    commands = [(page, text) for page in pages for text in _COMMAND.findall(page.read_text())]
    require(commands, "no document says how to install")
    for page, text in commands:
        wrong = {name for name in re.split(r"[\s\"']+", text) if name} - installable
        require(not wrong, f"{page.relative_to(root)}: pip install {text}: {', '.join(sorted(wrong))}")
