"""What each layer may import: an allow-list, so that a new module is forbidden until it is listed."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

CONTRACT = "rehome_events"
C = "rehome_consumer"
VALUES = {f"{C}.errors", f"{C}.facts", f"{C}.model", f"{C}.ports.steps", CONTRACT}
ALLOWED = {
    CONTRACT: set[str](),
    f"{C}.errors": set[str](),
    f"{C}.context": set[str](),
    f"{C}.model": {CONTRACT},
    f"{C}.facts": {f"{C}.model", CONTRACT},
    f"{C}.ports.steps": {f"{C}.facts", f"{C}.model", CONTRACT},
    f"{C}.ports.engine": {f"{C}.errors", f"{C}.ports.steps", CONTRACT},
    f"{C}.ports.readiness": set[str](),
    f"{C}.ports.tracing": set[str](),
    f"{C}.ports.operators": VALUES | {f"{C}.ports.engine"},
    f"{C}.fingerprint": {f"{C}.model", CONTRACT},
    f"{C}.move": VALUES,
    f"{C}.steps": VALUES | {f"{C}.fingerprint", f"{C}.move"},
    f"{C}.saga": {f"{C}.model", f"{C}.move", f"{C}.ports.readiness", f"{C}.steps", CONTRACT},
    f"{C}.rabbitmq.topology": {f"{C}.saga", CONTRACT},
    f"{C}.rabbitmq.permissions": {f"{C}.rabbitmq.topology", CONTRACT},
    f"{C}.engine": VALUES
    | {
        f"{C}.context",
        f"{C}.move",
        f"{C}.ports.engine",
        f"{C}.ports.readiness",
        f"{C}.ports.tracing",
        f"{C}.saga",
        f"{C}.rabbitmq.topology",
    },
    f"{C}.process.readiness": {
        f"{C}.errors",
        f"{C}.ports.operators",
        f"{C}.ports.readiness",
        f"{C}.saga",
        f"{C}.rabbitmq.topology",
        CONTRACT,
    },
    f"{C}.process.log_lines": {f"{C}.context", f"{C}.errors", f"{C}.ports.log_lines", f"{C}.process"},
    f"{C}.ports.log_lines": set(),
    f"{C}.process.worker": {
        f"{C}.engine",
        f"{C}.errors",
        f"{C}.ports.engine",
        f"{C}.process.log_lines",
        f"{C}.process.readiness",
        f"{C}.saga",
        f"{C}.rabbitmq.topology",
    },
}
PLACES = {CONTRACT: "events", C: "consumer"}


def files(unit: str) -> list[Path]:
    """A package's files, or a module's one."""
    path = ROOT.joinpath(PLACES[unit.partition(".")[0]], *unit.split("."))
    found = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    assert found
    return found


def unit_of(name: str) -> str:
    """The unit of ALLOWED that a module belongs to, or the module's package: `rehome_consumer.steps`, `tests`, ..."""
    first, *rest = name.split(".")
    listed = [unit for unit in ALLOWED if name == unit or name.startswith(f"{unit}.")]
    return max(listed, key=len, default=".".join([first, *rest[:1]]) if first == C else first)


def imported(file: Path) -> Iterator[str]:
    """Units of this project that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (unit_of(name) for name in names if name.split(".")[0] in {*PLACES, "sandbox", "tests"})


@pytest.mark.parametrize("unit", ALLOWED)
def test_a_layer_imports_only_what_is_below_it(unit: str) -> None:
    found = {name for file in files(unit) for name in imported(file)} - {unit}
    assert found <= ALLOWED[unit]


def test_neither_consumer_nor_contract_imports_sandbox_or_tests() -> None:
    for package in PLACES:
        for file in files(package):
            assert not {"sandbox", "tests"} & set(imported(file)), file


def test_no_process_imports_the_swarm_adapter_before_it_is_its_runtime() -> None:
    """Its library would be a third of the time that every command takes to start."""
    for file in files(C):
        if (ROOT / "consumer" / C / "adapters" / "swarm") in file.parents:
            continue
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                assert f"{C}.adapters.swarm" not in names, file


def test_sql_stands_in_sql_files_alone() -> None:
    assert {file.suffix for file in (ROOT / "consumer" / C / "sql").iterdir() if file.is_file()} == {
        ".py",
        ".sql",
    }
