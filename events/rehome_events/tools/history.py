"""The released schemas as they ever were, from git's history: a released copy that was edited is noticed, too.

`rehome_events.tools.released` compares with the copy in the package, which whoever changes a schema could change as
well. Where the history is here, the models are compared with every state of that copy.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import orjson

from rehome_events.catalog import KNOWN
from rehome_events.tools.compat import breaks
from rehome_events.tools.released import role_of
from rehome_events.tools.schema import Schema, generate

_SCHEMAS: Final = Path(str(files("rehome_events") / "schemas"))
_LIMIT: Final = 60.0
# Of the time before the first release, when nobody had the schemas yet.
_BEFORE_THE_FIRST_RELEASE: Final = frozenset(
    {
        "migration.conf_rewritten v1: data.kept_copy: removed",
        "migration.conf_rewritten v1: data.backup_path: became required",
        "migration.failed v1: data.attempts: renamed to tries",
        "migration.failed v1: data.tries: became required",
    }
)


@dataclass(frozen=True)
class Past:
    """What was released before.

    Attributes:
        schemas: Type, version and schema, each as often as it differed.
        note: How much of it could be seen, in a sentence.
    """

    schemas: tuple[tuple[str, int, Schema], ...]
    note: str


def past(schemas: Path = _SCHEMAS) -> Past:
    """Every released schema that git's history has."""
    try:
        if not _git(schemas, "ls-files", "LOCK"):
            return Past((), "no history: git does not have these files; compared with the released copy only")
        found = tuple(_states(schemas))
        shallow = _git(schemas, "rev-parse", "--is-shallow-repository").strip() == b"true"
    except FileNotFoundError:
        return Past((), "no history: git is not installed; compared with the released copy only")
    except subprocess.SubprocessError as error:
        told = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
        fatal = [line for line in told if line.startswith("fatal:")]  # lines of advice may follow it
        why = (fatal or told or [type(error).__name__])[-1]
        return Past((), f"no history ({why}); compared with the released copy only")
    cut = ", cut off: this is a shallow clone" if shallow else ""
    return Past(found, f"compared with {len(found)} released schemas of git's history{cut}")


def incompatible(known: Past) -> list[str]:
    """Where the models break what was ever released; empty when they break nothing."""
    found: list[str] = []
    for kind, version, schema in known.schemas:
        entry = KNOWN.get((kind, version))
        if entry is None:
            found.append(f"{kind} v{version}: withdrawn")
        else:
            found += [f"{kind} v{version}: {why}" for why in breaks(schema, generate(entry), role_of(entry))]
    return [
        f"{line} (released in git's history)"
        for line in dict.fromkeys(found)
        if line not in _BEFORE_THE_FIRST_RELEASE
    ]


def _states(schemas: Path) -> Iterator[tuple[str, int, Schema]]:
    seen: set[tuple[str, str]] = set()
    for commit in _git(schemas, "log", "--format=%H", "--", "released").decode().split():
        for line in _git(schemas, "ls-tree", "-r", commit, "--", "released/").decode().splitlines():
            blob, name = line.split()[2], line.partition("\t")[2]
            if (name, blob) not in seen:
                seen.add((name, blob))
                _, kind, file = name.split("/")
                version = int(file.removeprefix("v").removesuffix(".json"))
                yield kind, version, orjson.loads(_git(schemas, "cat-file", "blob", blob))


def _git(at: Path, *arguments: str) -> bytes:
    """What git prints, of the repository that has this directory.

    Raises:
        FileNotFoundError: There is no git.
        SubprocessError: It failed, such as where there is no repository, or did not end in time.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    ran = subprocess.run(
        ["git", "-C", str(at), *arguments], capture_output=True, check=True, timeout=_LIMIT, env=environment
    )
    return ran.stdout
