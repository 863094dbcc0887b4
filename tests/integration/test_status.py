"""`rehome status` on a real journal: an upgrade that waits for another migration of its instance is shown."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from rehome_consumer.commands.who import who
from tests.contract.journals import postgres_journal, state_database
from tests.support.command_line import command
from tests.support.events import body_of, migration_of, upgrade

if TYPE_CHECKING:
    from sandbox.postgres.server import Cluster


async def status(dsn: str, *arguments: object) -> tuple[int, str]:
    answer = await command("status", *arguments, environment={**os.environ, "REHOME_PLATFORM_DSN": dsn})
    return answer.code, answer.out


async def test_an_upgrade_that_waits_is_shown_below_the_migration_that_it_waits_for(pg: Cluster) -> None:
    first, second = upgrade(instance := uuid4()), upgrade(instance, to_plan="premium-yearly")
    async with state_database(pg) as dsn, postgres_journal(dsn) as journal:
        await journal.open(migration_of(first), instance, first, body_of(first))
        await journal.put_off(migration_of(second), second, timedelta(seconds=60))
        code, out = await status(dsn)
        _, listed = await status(dsn, "--json")
        one = json.loads((await status(dsn, instance, "--json"))[1])
        late = json.loads((await status(dsn, migration_of(second), "--json"))[1])
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.startswith(str(instance))]
    assert [row[1] for row in rows] == ["open", "waiting"]
    assert rows[1][2:4] == ["accept", "waiting"]
    assert rows[1][5] == "in"
    assert "upgrade to premium-yearly" in out
    assert f"why: migration {migration_of(first)} holds the instance (open)" in " ".join(out.split())
    ahead, behind = json.loads(listed)
    assert (ahead["id"], ahead["behind"]) == (str(migration_of(first)), None)
    assert (behind["id"], behind["behind"], behind["state"]) == (
        str(migration_of(second)),
        str(migration_of(first)),
        "waiting",
    )
    assert behind["next_try_at"] > behind["created_at"]
    assert (behind["attention"], behind["worked_on"]) == (None, None)
    assert [found["state"] for found in one] == ["open", "waiting"]
    assert [found["id"] for found in late] == [str(migration_of(second))]


async def test_an_upgrade_that_did_not_come_back_needs_an_operator(pg: Cluster) -> None:
    first, second = upgrade(instance := uuid4()), upgrade(instance)
    async with state_database(pg) as dsn, postgres_journal(dsn) as journal:
        await journal.open(migration_of(first), instance, first, body_of(first))
        await journal.put_off(migration_of(second), second, timedelta(minutes=-3))
        code, out = await status(dsn)
    assert (code, "needs an operator: its next try is overdue" in out) == (1, True)


async def test_a_pause_is_shown_first_and_every_order_is_kept(pg: Cluster) -> None:
    async with state_database(pg) as dsn, postgres_journal(dsn):
        environment = {**os.environ, "REHOME_PLATFORM_DSN": dsn}

        async def rehome(*arguments: str) -> tuple[int, str]:
            answer = await command(*arguments, environment=environment)
            return answer.code, " ".join(answer.out.split())

        assert await rehome("resume") == (0, "moves go on already: rehome was not paused")
        code, out = await rehome("pause", "--reason", "the storage is slow")
        assert (code, f"rehome is paused by {who()} since" in out) == (0, True)
        assert "already paused" in (await rehome("pause", "--reason", "once more"))[1]
        code, out = await rehome("status")
        assert (code, out.startswith(f"rehome is paused by {who()} since")) == (0, True)
        assert "the storage is slow; no new move begins until `rehome resume`" in out
        resumed = json.loads((await rehome("resume", "--json"))[1])
        assert resumed == {"changed": True, "paused": None}
        assert "paused" not in (await rehome("status"))[1]
        listed = json.loads((await rehome("pause", "--history", "--json"))[1])
        assert [(one["paused"], one["by"], one["why"]) for one in listed] == [
            (False, who(), ""),
            (True, who(), "the storage is slow"),
        ]
        assert "paused by" in (await rehome("pause", "--history"))[1]
