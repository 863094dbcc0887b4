"""Named queries: every statement that is not composed from names is in a `.sql` file beside this one.

A file is a list of blocks, each with a name, one line that describes it, and the statement:

```sql
-- name: instance_by_id
-- The instance's row, as far as a migration needs it.
SELECT ... FROM instances WHERE id = $1;
```

Comments above the first name belong to the file.

An administrator's session may run only what is in `administrator/`: it reads catalogues and changes servers, roles
and databases, and every name in it is qualified. `Administrator` (adapters/postgres) accepts nothing else, and a test
checks these files.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"^-- name:[ \t]*(?P<name>.*?)[ \t]*$", re.MULTILINE)
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")


_PLACE = re.compile(r"\{(?P<name>[a-z_]+)\}")


class AdministratorSql(str):
    """A statement that an administrator's session may run: from a file in `administrator/`, and from nowhere else."""

    __slots__ = ()


def administrator(name: str) -> dict[str, AdministratorSql]:
    """The named queries of `consumer/rehome_consumer/sql/administrator/{name}.sql`, as `load`."""
    text = (files(__name__) / "administrator" / f"{name}.sql").read_text(encoding="utf-8")
    return {
        query: AdministratorSql(statement)
        for query, statement in parse(text, source=f"administrator/{name}.sql").items()
    }


def load(name: str) -> dict[str, str]:
    """The named queries of `consumer/rehome_consumer/sql/{name}.sql`: query name -> statement, without its description.

    Raises:
        ValueError: the file does not have the form above (a programming error, so no RehomeError).
    """
    return parse((files(__name__) / f"{name}.sql").read_text(encoding="utf-8"), source=f"{name}.sql")


def parse(text: str, *, source: str) -> dict[str, str]:
    """As `load`, from the file's text; `source` is the name that errors give."""
    heads = list(_NAME.finditer(text))
    if not heads:
        raise ValueError(f"{source}: no '-- name: ...' line")
    ends = [head.start() for head in heads[1:]] + [len(text)]
    queries: dict[str, str] = {}
    for head, end in zip(heads, ends, strict=True):
        name = head["name"]
        if not _IDENTIFIER.fullmatch(name):
            raise ValueError(f"{source}: {name!r} is no query name (lower case, digits, underscores)")
        if name in queries:
            raise ValueError(f"{source}: two queries are named {name!r}")
        description, _, statement = text[head.end() : end].lstrip("\n").partition("\n")
        if not description.startswith("-- "):
            raise ValueError(f"{source}: {name!r} needs a line that describes it, starting with '-- '")
        if not statement.strip():
            raise ValueError(f"{source}: {name!r} has no statement")
        queries[name] = statement.strip()
    return queries


_DDL: Final[Mapping[str, AdministratorSql]] = administrator("ddl")


def ddl(statement: str, **parts: str) -> AdministratorSql:
    """A statement of `administrator/ddl.sql` with its places filled in.

    Args:
        statement: its name.
        parts: for each {place} the SQL that goes there: from `names.quoted`, `names.literal`, or fixed SQL.

    Raises:
        KeyError: there is no such statement, or a place has no part (programming errors).
    """
    return AdministratorSql(_PLACE.sub(lambda place: parts[place["name"]], _DDL[statement]))
