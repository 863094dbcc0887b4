"""The contract's command line: what it prints, and its exit codes."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from rehome_events.__main__ import main
from rehome_events.catalog import CATALOG
from rehome_events.tools.schema import golden, load

Output = pytest.CaptureFixture[str]


@pytest.fixture
def event_file(tmp_path: Path) -> Path:
    file = tmp_path / "event.json"
    file.write_bytes(orjson.dumps(golden("plan.upgraded", 1, "valid")["full"]))
    return file


def test_a_valid_event_is_named(event_file: Path, capsys: Output) -> None:
    assert main(["validate", str(event_file)]) == 0
    assert capsys.readouterr().out == f"{event_file}: valid plan.upgraded v1\n"


def test_every_mistake_of_an_invalid_event_is_named(event_file: Path, capsys: Output) -> None:
    event = orjson.loads(event_file.read_bytes())
    del event["data"]["to_plan"]
    event["data"]["customer_id"] = "42"
    event_file.write_bytes(orjson.dumps(event))
    assert main(["validate", str(event_file)]) == 1
    printed = capsys.readouterr().out
    assert "data.to_plan" in printed
    assert "data.customer_id" in printed


def test_a_misspelt_optional_field_is_warned_of(event_file: Path, capsys: Output) -> None:
    event = orjson.loads(event_file.read_bytes())
    event["data"]["entitlements"]["memory"] = "8G"
    event_file.write_bytes(orjson.dumps(event))
    assert main(["validate", str(event_file)]) == 0
    assert "data.entitlements.memory" in capsys.readouterr().err


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"{}")))
    assert main(["validate", "-"]) == 1
    assert "standard input: not valid: missing attribute: specversion" in capsys.readouterr().out


def test_one_invalid_file_among_valid_ones_decides(event_file: Path, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "bad.json").write_text("[]")
    assert main(["validate", str(event_file), str(tmp_path / "bad.json")]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_missing_file_is_wrong_usage(tmp_path: Path, capsys: Output) -> None:
    assert main(["validate", str(tmp_path / "nothing.json")]) == 2
    assert "nothing.json" in capsys.readouterr().err


def test_every_type_is_listed(capsys: Output) -> None:
    assert main(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(CATALOG)


def test_the_list_is_there_for_programs(capsys: Output) -> None:
    assert main(["list", "--json"]) == 0
    assert [row["type"] for row in orjson.loads(capsys.readouterr().out)] == list(CATALOG)


def test_the_schema_of_a_type_is_printed(capsys: Output) -> None:
    assert main(["schema", "migration.completed"]) == 0
    assert orjson.loads(capsys.readouterr().out) == load("migration.completed", 1)


def test_the_schema_of_an_unknown_type_is_an_error(capsys: Output) -> None:
    assert main(["schema", "migration.teleported"]) == 1
    assert "migration.teleported" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--minimal"], ["--version", "1"]])
def test_an_example_of_a_type_is_printed_and_valid(more: list[str], tmp_path: Path, capsys: Output) -> None:
    assert main(["example", "migration.completed", *more]) == 0
    (tmp_path / "example.json").write_text(capsys.readouterr().out)
    assert main(["validate", str(tmp_path / "example.json")]) == 0


def test_schema_alone_is_wrong_usage() -> None:
    assert main(["schema"]) == 2


@pytest.mark.parametrize("command", ["schema", "asyncapi", "typescript", "page"])
def test_committed_files_are_up_to_date_and_break_nothing_that_was_released(
    command: str, capsys: Output
) -> None:
    assert main([command, "--check"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("command", ["asyncapi", "page"])
def test_what_is_out_of_date_is_named(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(f"rehome_events.tools.{command}.FILE", tmp_path / "old")
    monkeypatch.setattr("rehome_events.tools.page.HTML_FILE", tmp_path / "old.html")
    (tmp_path / "old").write_text("old")
    assert main([command, "--check"]) == 1
    assert str(tmp_path / "old") in capsys.readouterr().out
    assert main([command, "--write"]) == 0
    assert main([command, "--check"]) == 0


def test_the_page_is_printed_in_html(capsys: Output) -> None:
    assert main(["page", "--html"]) == 0
    assert capsys.readouterr().out.startswith("<!DOCTYPE html>")


def test_mock_without_a_broker_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.delenv("EVENTS_AMQP_URL", raising=False)
    assert main(["mock"]) == 2
    assert "EVENTS_AMQP_URL" in capsys.readouterr().err


def test_wrong_usage_ends_with_2() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["shout"])
    assert ended.value.code == 2


def test_it_runs_as_a_module() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "rehome_events", "list"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "migration.completed" in ran.stdout


def test_a_broker_that_is_not_there_is_one_sentence() -> None:
    url = "amqp://u:hunter2@127.0.0.1:1/x"
    ran = subprocess.run(
        [sys.executable, "-m", "rehome_events", "mock"],
        env={**os.environ, "EVENTS_AMQP_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 1
    assert re.fullmatch(r"error: no connection to amqp://127\.0\.0\.1:1/x: .*\n", ran.stderr)


def test_files_of_expectations_are_checked(tmp_path: Path, capsys: Output) -> None:
    crm = Path(__file__).parents[2] / "contract" / "subscribers" / "crm.json"
    assert main(["expectations", str(crm)]) == 0
    assert capsys.readouterr().out == f"{crm}: crm: the contract has all of it\n"
    other = tmp_path / "other.json"
    other.write_bytes(crm.read_bytes().replace(b"data.to_plan", b"data.plan"))
    assert main(["expectations", str(crm), str(other)]) == 1
    assert f"{other}: crm: instance.resized v1: data.plan is missing" in capsys.readouterr().out
    other.write_text("{")
    assert main(["expectations", str(other)]) == 1
    assert f"error: {other}: not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["mock"], ["conform", "--", "true"]])
def test_the_broker_must_be_named(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.delenv("EVENTS_AMQP_URL", raising=False)
    assert main(command) == 2
    assert "set EVENTS_AMQP_URL=amqp://" in capsys.readouterr().err
