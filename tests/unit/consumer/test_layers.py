"""What each layer may import: an allow-list, so that a new module is forbidden until somebody decides."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

VALUES = {"consumer.errors", "consumer.model", "consumer.ports", "events"}
ALLOWED = {
    "events": set[str](),
    "consumer.errors": set[str](),
    "consumer.context": set[str](),
    "consumer.model": {"events"},
    "consumer.ports": {"consumer.model", "events"},
    "consumer.ports_engine": {"consumer.errors", "consumer.ports", "events"},
    "consumer.fingerprint": {"consumer.model", "events"},
    "consumer.steps": VALUES | {"consumer.fingerprint"},
    "consumer.saga": {"consumer.model", "consumer.ports", "consumer.steps", "events"},
    "consumer.topology": {"consumer.saga", "events"},
    "consumer.delivery": VALUES
    | {"consumer.context", "consumer.ports_engine", "consumer.saga", "consumer.topology"},
    "consumer.worker": {
        *("consumer.delivery", "consumer.errors", "consumer.ports_engine", "consumer.saga"),
        "consumer.topology",
    },
}
OURS = {"events", "consumer", "sandbox", "tests"}


def files(unit: str) -> list[Path]:
    """A package's files, or a module's one."""
    path = ROOT.joinpath(*unit.split("."))
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def imported(file: Path) -> Iterator[str]:
    """Modules of ours that a file imports: `consumer.steps`, `events`, ..."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first in OURS:
                yield ".".join([first, *rest[:1]]) if first == "consumer" else first


@pytest.mark.parametrize("unit", ALLOWED)
def test_a_layer_imports_only_what_is_below_it(unit: str) -> None:
    found = {name for file in files(unit) for name in imported(file)} - {unit}
    assert found <= ALLOWED[unit]


def test_neither_consumer_nor_contract_imports_sandbox_or_tests() -> None:
    for package in ("consumer", "events"):
        for file in files(package):
            assert not {"sandbox", "tests"} & set(imported(file)), file


def test_sql_stands_in_sql_files_alone() -> None:
    assert {file.suffix for file in (ROOT / "consumer" / "sql").iterdir() if file.is_file()} == {
        ".py",
        ".sql",
    }
