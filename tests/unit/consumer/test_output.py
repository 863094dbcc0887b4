"""Names that tenants chose never control an operator's terminal, whichever command prints them."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.__main__ import main
from rehome_consumer.commands import lines, migration_lines
from rehome_consumer.commands import topology as topology_command
from rehome_consumer.commands.show import as_json
from rehome_consumer.rabbitmq import topology
from tests.support.snapshots import NOW, a_view

if TYPE_CHECKING:
    from collections.abc import Iterator

CONSUMER = Path(__file__).parents[3] / "consumer" / "rehome_consumer"
WRITER = CONSUMER / "commands" / "lines.py"
HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\x7f\u202e\u2028\rrehome: forged"


def harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def writes(tree: ast.AST) -> Iterator[ast.AST]:
    """Everything that writes to a standard stream."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id="print"):
                yield node
            case ast.Attribute(
                value=ast.Name(id="sys" | "os"), attr="stdout" | "stderr" | "__stdout__" | "write"
            ):
                yield node
            case ast.ImportFrom(module="sys" | "rich" | "rich.console"):
                yield node


@pytest.mark.parametrize("file", sorted(CONSUMER.glob("commands/*.py")), ids=lambda path: path.stem)
def test_commands_print_through_one_writer(file: Path) -> None:
    found = [ast.unparse(node) for node in writes(ast.parse(file.read_text()))]
    assert file == WRITER or not found


def test_the_command_line_prints_only_its_help_itself() -> None:
    found = [ast.unparse(node) for node in writes(ast.parse((CONSUMER / "__main__.py").read_text()))]
    assert found == ["sys.stderr"]


def test_lines_escape_what_would_control_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines.say(HOSTILE, "a\nb")
    lines.printed([f"x {HOSTILE}"])
    lines.say(HOSTILE, error=True)
    output = capsys.readouterr()
    assert output.out.split("\n")[1] == r"a\nb"
    assert output.out.count(r"\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\x7f\u202e\u2028\rrehome") == 2
    assert harmless(output.out + output.err)


def test_rows_and_sentences_are_as_wide_as_their_escaped_text() -> None:
    assert lines.row(("\x1b", "b"), (6,)) == r"\x1b    b"
    assert lines.detail("a\n\x1b\t b") == [r"    a \x1b b"]
    assert lines.field("name", f"a\n{HOSTILE}")[0].startswith(r"name       a \x1b]52;c;")
    assert all(
        len(line) <= lines.PIPED for line in lines.detail("\x1b " * 100) + lines.field("a", "\x1b " * 100)
    )


@pytest.mark.parametrize("column", ["to_plan", "error", "reason", "step"])
def test_a_block_of_status_is_harmless(column: str) -> None:
    state: dict[str, Any] = {"step": "restore", "step_state": "waiting", column: HOSTILE}
    block = migration_lines.block(a_view("requested", **state), None, now=NOW)
    assert r"\x1b]52;c;" in "".join(block)
    assert all(line.isprintable() for line in block)


def test_json_is_valid_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    as_json({"name": HOSTILE, "file": "odoo.conf.rehome-\udcff", "at": NOW})
    as_json({"name": HOSTILE})
    output = capsys.readouterr().out
    assert harmless(output)
    first, _, second = output.partition("}\n{")
    assert json.loads(first + "}") == {
        "name": HOSTILE,
        "file": "odoo.conf.rehome-\udcff",
        "at": NOW.isoformat(),
    }
    assert json.loads("{" + second) == {"name": HOSTILE}
    assert r"\u202e" in second


def test_names_in_definitions_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    definitions = topology.definitions()
    definitions["bindings"].append({**definitions["bindings"][0], "routing_key": HOSTILE})
    (tmp_path / "there.json").write_text(json.dumps(definitions))
    assert main(["topology", "check", "--definitions", str(tmp_path / "there.json")]) == 1
    assert main(["topology", "check", "--json", "--definitions", str(tmp_path / "there.json")]) == 1
    output = capsys.readouterr().out
    assert output.count("52;c;ZXZpbA") >= 2
    assert harmless(output)


def test_errors_and_wrong_usage_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topology", "check", "--definitions", f"/nonexistent{HOSTILE}"]) == 2
    with pytest.raises(SystemExit, match="2"):
        main(["status", f"--{HOSTILE}"])
    with pytest.raises(SystemExit, match="2"):
        main(["status", HOSTILE])
    output = capsys.readouterr().err
    assert (
        output.count("52;c;ZXZpbA") == 4
    )  # the first is printed with the system's own error, which repeats it
    assert harmless(output)


def test_a_defect_is_shown_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mistaken(_: str) -> None:
        raise KeyError(f"{HOSTILE}") from ValueError(f"\n{HOSTILE}")

    monkeypatch.setattr(topology_command, "_from_file", mistaken)
    assert main(["topology", "check", "--definitions", "-"]) == 1
    output = capsys.readouterr().err
    assert output.startswith("ValueError: ") or "Traceback (most recent call last):" in output
    assert harmless(output)
