"""Programs in JavaScript, beside this file, for Node with the packages of build/node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

from tests.clients.pages import LIMIT, NODE

_PROGRAMS: Final = Path(__file__).parent


def run(program: str, given: object, *arguments: str) -> str:
    """Run a program with JSON as its input; returns what it prints."""
    ran = subprocess.run(
        ["node", "--input-type=module", "-e", (_PROGRAMS / program).read_text(), *arguments],
        cwd=NODE, input=json.dumps(given), capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
