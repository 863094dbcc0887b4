"""What an administrator's session may run: only the statements of certain files (see also `test_qualified_sql`)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rehome_consumer.adapters.postgres.kinds import Administrator
from rehome_consumer.sql import administrator, ddl, parse

ROOT = Path(__file__).parents[5] / "consumer" / "rehome_consumer"
FILES = sorted((ROOT / "sql" / "administrator").glob("*.sql"))
STATEMENTS = {
    f"{file.stem}.{name}": statement
    for file in FILES
    for name, statement in parse(file.read_text(), source=file.name).items()
}


def bare(statement: str) -> str:
    """Without comments and strings."""
    return re.sub(r"'(?:[^']|'')*'", "''", re.sub(r"--[^\n]*", "", statement))


def test_statements_that_change_anything_are_in_one_file() -> None:
    for name, statement in STATEMENTS.items():
        if not name.startswith("ddl."):
            assert bare(statement).lstrip().startswith("SELECT"), name


async def test_an_administrators_session_accepts_nothing_else() -> None:
    session = Administrator(None)  # type: ignore[arg-type] # it is refused before anything is sent
    for act in (session.fetch, session.fetchrow, session.fetchval, session.execute):
        with pytest.raises(TypeError, match="only statements of sql/administrator"):
            await act("SELECT count(*) FROM account_move")  # type: ignore[arg-type]


def test_the_places_of_a_statement_are_filled_and_nothing_else() -> None:
    assert ddl("rename_role", role='"a"', name='"{role}"') == 'ALTER ROLE "a" RENAME TO "{role}"'
    with pytest.raises(KeyError):
        ddl("rename_role", role='"a"')
    assert set(administrator("ddl")) == {
        name.removeprefix("ddl.") for name in STATEMENTS if name.startswith("ddl.")
    }


def test_no_other_module_makes_such_statements_or_sessions() -> None:
    """`AdministratorSql` is made by rehome_consumer.sql, `Administrator` by the module that opens sessions."""
    makers = {"AdministratorSql": {"sql/__init__.py"}, "Administrator": {"adapters/postgres/sessions.py"}}
    found: dict[str, set[str]] = {name: set() for name in makers}
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in makers:
                found[node.func.id].add(file.relative_to(ROOT).as_posix())
    assert found == makers


def test_only_one_module_connects_to_pools_and_dedicated_servers() -> None:
    """asyncpg.connect elsewhere would be a third kind of session."""
    callers = {
        file.relative_to(ROOT).as_posix()
        for file in ROOT.rglob("*.py")
        if re.search(r"asyncpg\.connect\(", file.read_text())
    }
    assert callers == {"adapters/common/scram_only.py", "bootstrap.py"}  # the latter: to the journal
