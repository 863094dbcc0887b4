"""The released schemas and examples, which other teams rely on and every later change has to respect.

``schemas/released`` holds each schema as it was last released, ``schemas/LOCK`` the SHA-256 of those and of every
golden example, in the format of ``sha256sum``. A schema may change only compatibly (`rehome_events.tools.compat`), a
released example never.
"""

from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import orjson

from rehome_events.catalog import KNOWN, EventType
from rehome_events.errors import EventError
from rehome_events.tools.changes import record
from rehome_events.tools.compat import Role, breaks
from rehome_events.tools.schema import Schema, generate, render

_SCHEMAS: Final = files("rehome_events") / "schemas"


def role_of(entry: EventType) -> Role:
    """Whether rehome publishes an entry's events or reads them."""
    return "emit" if entry.published_by == "rehome" else "read"


def released(schemas: Traversable = _SCHEMAS) -> dict[tuple[str, int], Schema]:
    """The released schemas by type and version."""
    return {
        (folder.name, int(file.name.removeprefix("v").removesuffix(".json"))): orjson.loads(file.read_bytes())
        for folder in (schemas / "released").iterdir()
        for file in folder.iterdir()
    }


def incompatible(schemas: Traversable = _SCHEMAS) -> list[str]:
    """Where the models break what was released; empty when they break nothing."""
    found = []
    for (kind, version), schema in sorted(released(schemas).items()):
        entry = KNOWN.get((kind, version))
        if entry is None:
            found.append(f"{kind} v{version}: withdrawn")
        else:
            reasons = breaks(schema, generate(entry), role_of(entry))
            found += [f"{kind} v{version}: {reason}" for reason in reasons]
    return found


def tampered(schemas: Traversable = _SCHEMAS) -> list[str]:
    """Which released files were changed or removed; empty when all are as they were released."""
    found = []
    for line in (schemas / "LOCK").read_text().splitlines():
        digest, name = line.split("  ")
        file = schemas / name
        if not file.is_file():
            found.append(f"{name}: removed")
        elif sha256(file.read_bytes()).hexdigest() != digest:
            found.append(f"{name}: changed")
    return found


def unlocked(root: Path = Path(str(_SCHEMAS))) -> list[str]:
    """Which released schemas and golden examples have no checksum, so that a change would not be noticed."""
    locked = {line.split("  ")[1] for line in (root / "LOCK").read_text().splitlines()}
    return [f"{name}: not in LOCK; write it with --release" for name in _to_lock(root) if name not in locked]


def release(root: Path = Path(str(_SCHEMAS))) -> list[str]:
    """Release the models' schemas and the golden examples; returns the files that are new or changed.

    Raises:
        EventError: A released file was changed, or the models break what was released.
    """
    if (root / "LOCK").exists():
        loose = [text for text in unlocked(root) if text.startswith("released/")]
        if reasons := [*tampered(root), *loose, *incompatible(root)]:
            raise EventError("not released: " + "; ".join(reasons))
    record(released(root) if (root / "released").is_dir() else {}, root)
    for entry in KNOWN.values():
        file = root / "released" / entry.type / f"v{entry.version}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(render(generate(entry)))
    lines = [f"{sha256((root / name).read_bytes()).hexdigest()}  {name}" for name in _to_lock(root)]
    before = (root / "LOCK").read_text().splitlines() if (root / "LOCK").exists() else []
    (root / "LOCK").write_text("\n".join(lines) + "\n")
    return [line.split("  ")[1] for line in lines if line not in before]


def _to_lock(root: Path) -> list[str]:
    patterns = ("released/*/*.json", "*/valid/*.json", "*/invalid/*.json")
    return sorted(str(file.relative_to(root)) for pattern in patterns for file in root.glob(pattern))
