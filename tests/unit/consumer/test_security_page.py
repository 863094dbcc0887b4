"""docs/security.md agrees with the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rehome_consumer.__main__ import _parser
from rehome_consumer.adapters.backup import files
from rehome_consumer.adapters.common import subprocesses
from rehome_consumer.adapters.odoo import conf_files
from rehome_consumer.adapters.platform import database_service
from rehome_consumer.adapters.rabbitmq import management, rabbitmqctl
from rehome_consumer.adapters.swarm import answers
from rehome_consumer.rabbitmq.permissions import ROLES, Role, rights
from rehome_consumer.rabbitmq.users_file import read_users
from rehome_events import wire
from sandbox.supervisor import client

PAGE = (Path(__file__).parents[3] / "docs" / "security.md").read_text()
ROWS = {
    cells[0].split("`")[1]: cells[1:]
    for line in PAGE.splitlines()
    if line.startswith("| `") and len(cells := re.split(r"(?<!\\)\|", line.strip("| "))) == 5
}


def patterns(cell: str) -> list[str]:
    return [found.replace(r"\|", "|") for found in re.findall("`([^`]*)`", cell)]


@pytest.mark.parametrize("role", ROLES)
def test_the_table_has_the_permissions_of_a_role(role: Role) -> None:
    granted = rights(role, "crm", ("migration.completed",))
    configure, write, read, topics = ROWS[role]
    assert [patterns(configure), patterns(write), patterns(read)] == [[one] for one in granted.triple]
    for exchange, (written, readable) in granted.topics.items():
        shown = patterns(topics)
        assert shown[:2] == [exchange, written]
        assert role == "subscriber" or shown[2] == readable
    assert granted.topics or topics.strip() == "none"


def test_the_table_has_the_limits_of_the_code() -> None:
    shown = {
        cells[0].strip(): int(cells[1].replace(",", ""))
        for line in PAGE.splitlines()
        if len(cells := line.strip("| ").split(" | ")) == 3 and re.fullmatch(r"[0-9,]+", cells[1])
    }
    assert shown == {
        "an event": wire.MAX_BODY,
        "an answer of database-service": database_service.LARGEST_ANSWER,
        "an answer of the process manager": client.LARGEST_ANSWER,
        "an answer of Docker's engine": answers.LARGEST_ANSWER,
        "the last lines of a task's log, from Docker's engine": answers.LARGEST_LOG,
        "one event of Docker's engine": answers.LONGEST_EVENT,
        "an instance's answer about its health": 0,
        "an answer of the broker's management API": management.LARGEST_ANSWER,
        "what `rabbitmqctl` prints": rabbitmqctl.LARGEST_OUTPUT,
        "what `rabbitmqctl` says on standard error": rabbitmqctl.LARGEST_ERROR_OUTPUT,
        "what `pg_dump`, `pg_restore` and `vacuumdb` print": subprocesses.KEPT_OUTPUT,
        "an `odoo.conf`": conf_files.LARGEST,
        "a manifest of a backup": files.LARGEST,
    }
    assert f"the last {subprocesses.KEPT_LINES} lines" in PAGE
    assert f"of a line {answers.LONGEST_LOG_LINE} characters" in PAGE


def test_the_example_of_a_file_of_users_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "users.toml").write_text(example)
    found = read_users(tmp_path / "users.toml")
    assert [user.name for user in found.users] == ["billing", "crm"]
    assert found.others == ("admin",)


def test_the_commands_are_those_of_the_command_line() -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines():
        program, *arguments = shlex.split(line.partition(" >")[0])
        assert program == "rehome"
        assert _parser().parse_args(arguments).work


def test_the_table_of_threats_names_tests_that_exist() -> None:
    attacks = Path(__file__).parents[2] / "attack"
    rows = [line.rpartition("|")[0].rpartition("|")[2] for line in PAGE.splitlines() if "| `test_" in line]
    assert len(rows) > 15
    for proof in rows:
        module, *tests = re.findall(r"`([^`]*)`", proof)
        source = (attacks / f"{module}.py").read_text()
        for test in tests:
            assert all(part in source for part in re.split(r"\.\.\.|[\[\]]", test)), test
