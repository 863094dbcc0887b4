"""Prints the part of requirements.lock that a distribution or a dependency group needs, for pip --require-hashes.

python scripts/locked.py rehome-consumer | dev | build | beside | fuzz | attack ...
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
MEMBERS = {"rehome-events": "events", "rehome-consumer": "consumer"}
ENTRY = re.compile(r"^([\w.-]+)==")
VIA = re.compile(r"^ +# +(?:via +)?([\w.-]+)")


def plain(requirement: str) -> str:
    """The normalized name in a requirement: `Foo_Bar[x]>=1` -> `foo-bar`."""
    name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def roots(part: str) -> set[str]:
    """Names of the distributions that a part needs directly.

    Raises:
        SystemExit: there is no such part.
    """
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    if part in MEMBERS:
        project = tomllib.loads((ROOT / MEMBERS[part] / "pyproject.toml").read_text())["project"]
        needs = project["dependencies"]
    elif part in groups:
        needs = groups[part]
    else:
        raise SystemExit(f"locked.py: no part {part!r}; there are {', '.join([*MEMBERS, *groups])}")
    found: set[str] = set()
    for one in needs:
        name = one["include-group"] if isinstance(one, dict) else plain(one)
        found |= roots(name) if isinstance(one, dict) or name in MEMBERS else {name}
    return found


def entries(text: str) -> dict[str, tuple[str, set[str]]]:
    """Name -> its lines, and the names of those that need it."""
    found: dict[str, tuple[str, set[str]]] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        if match := ENTRY.match(line):
            name = plain(match[1])
            found[name] = (line, set())
        elif name:
            lines, via = found[name]
            if match := VIA.match(line):
                via.add(plain(match[1]))
            found[name] = (lines + line, via)
    return found


def main() -> None:
    """Print the entries of the parts, with all that they need."""
    locked = entries((ROOT / "requirements.lock").read_text())
    wanted = set().union(*map(roots, sys.argv[1:]))
    if missing := sorted(wanted - locked.keys()):
        raise SystemExit(f"locked.py: not in requirements.lock: {', '.join(missing)}; run `make lock`")
    while more := {name for name, (_, via) in locked.items() if via & wanted} - wanted:
        wanted |= more
    print("".join(lines for name, (lines, _) in locked.items() if name in wanted), end="")


if __name__ == "__main__":
    main()
