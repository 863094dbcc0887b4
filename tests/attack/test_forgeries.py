"""Forgeries: session names, roles, backups and files that are not rehome's own."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from sandbox.postgres.connections import open_connection
from sandbox.postgres.server import Cluster
from tests.attack.attack import COMPLETED, ROLLED_BACK, Attack
from tests.chaos.moving import hold

REFUSED = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
FORGERS = 4


@pytest.mark.representative("15-15")
async def test_sessions_of_a_neighbour_under_rehomes_name_delay_no_move_and_are_not_ended(
    attack: Attack,
) -> None:
    await attack.begin(order=hold("stop.claimed"))
    assert await attack.there()
    neighbour, ended = attack.neighbour, []

    async def forge(number: int) -> None:
        """Reconnect whenever the session is ended."""
        while True:
            connection = await open_connection(
                attack.pool.dsn(neighbour.database, user=neighbour.role, password=neighbour.password),
                server_settings={"application_name": f"rehome:{attack.migration}"},
                timeout=10,
            )
            try:
                await connection.execute("SELECT pg_sleep(600)")
            except asyncpg.PostgresError as error:
                ended.append(f"session {number}: {error}")
            finally:
                connection.terminate()

    forgers = [asyncio.create_task(forge(number)) for number in range(FORGERS)]
    try:
        assert await attack.ends() == COMPLETED, attack.refusal()
    finally:
        for forger in forgers:
            forger.cancel()
        await asyncio.gather(*forgers, return_exceptions=True)
    assert ended == []
    await attack.holds()


@asynccontextmanager
async def trying_known_password(attack: Attack) -> AsyncIterator[list[str]]:
    """During the block: short-lived roles, on either server, that admit a login with the known password."""
    entered: list[str] = []

    async def attempt(cluster: Cluster) -> None:
        async with cluster.connect() as session:
            rows = await session.fetch("SELECT rolname FROM pg_roles WHERE rolname ~ '^rehome_'")
        names = [row["rolname"] for row in rows]
        for name in names:
            with contextlib.suppress(*REFUSED):
                async with cluster.connect("postgres", user=name, password="known"):
                    entered.append(f"{name} on port {cluster.port}")

    async def watch() -> None:
        while True:
            with contextlib.suppress(*REFUSED, LookupError):
                await attempt(attack.pool)
                if (dedicated := await attack.dedicated()) is not None:
                    await attempt(dedicated)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield entered
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.parametrize("jobs", [pytest.param("1", marks=pytest.mark.representative("15-15")), "4"])
async def test_a_short_lived_role_is_neither_taken_over_nor_kept_by_the_code_it_runs(
    jobs: str, attack: Attack
) -> None:
    await attack.make("keeping")
    async with trying_known_password(attack) as entered:
        await attack.begin(JOBS=jobs)
        outcome = await attack.ends()
    assert any(one.session.startswith("rehome_") for one in attack.reports())
    # A role can change its own password. While pg_restore runs, which logs in repeatedly, this opens the tenant's own
    # new database to the tenant; it is detected, all sessions are ended, and the move fails.
    assert not any("_restore" not in one for one in entered)
    assert outcome == ROLLED_BACK
    assert not entered or "tried to keep a way in" in attack.refusal()
    await attack.holds()


@pytest.mark.parametrize(
    "kind", [pytest.param("TABLE", marks=pytest.mark.representative("15-15")), "SEQUENCE"]
)
async def test_nothing_is_lost_that_was_added_to_an_extension(kind: str, attack: Attack) -> None:
    await attack.make()
    await attack.as_tenant(
        "CREATE TABLE account_move (id integer PRIMARY KEY, name text)",
        "INSERT INTO account_move SELECT i, 'INV/' || i FROM generate_series(1, 30) AS i",
        "CREATE SEQUENCE account_number START 7000",
        f"ALTER EXTENSION pg_trgm ADD {kind} {'account_move' if kind == 'TABLE' else 'account_number'}",
    )
    await attack.remember()
    await attack.begin()
    outcome = await attack.ends()
    name = "account_move" if kind == "TABLE" else "account_number"
    if outcome == ROLLED_BACK:
        assert name in attack.refusal()
    else:
        dedicated = await attack.dedicated()
        assert dedicated is not None
        async with dedicated.connect(attack.tenant.database) as new:
            assert await new.fetchval("SELECT to_regclass($1::text)", f"public.{name}"), f"{name} is lost"
    await attack.holds()


@pytest.mark.representative("15-15")
async def test_a_backup_that_is_altered_together_with_its_manifest_is_not_restored(attack: Attack) -> None:
    await attack.begin(order=hold("rewrite_conf.committed"))
    assert await attack.there()
    (sealed,) = attack.place.local.backup_root.glob(f"{attack.migration}-*")
    forge_backup(sealed)
    assert await attack.ends() == ROLLED_BACK, f"it was restored: {attack.types()}"
    assert "manifest" in attack.refusal()
    await attack.holds()


def forge_backup(sealed: Path) -> None:
    """One byte more in a file, and a manifest that says so."""
    (path,) = sealed.glob("manifest*.json")
    manifest = json.loads(path.read_bytes())
    name = next(name for name in manifest["files"] if name.endswith("source.json"))
    data = (sealed / name).read_bytes() + b" "
    (sealed / name).write_bytes(data)
    manifest["files"][name] = {
        key: len(data) if isinstance(value, int) else hashlib.sha256(data).hexdigest()
        for key, value in manifest["files"][name].items()
    }
    path.write_text(json.dumps(manifest))


@pytest.mark.representative("15-15")
async def test_an_odoo_conf_that_is_a_hard_link_is_refused(attack: Attack) -> None:
    await attack.make()
    other = attack.site.directory / "other.conf"
    other.hardlink_to(attack.site.conf)
    before = other.read_bytes()
    await attack.begin()
    assert await attack.ends() == ROLLED_BACK, "it was moved"
    assert attack.refusal().startswith("prepare: ")
    assert str(attack.site.conf) in attack.refusal()
    assert other.read_bytes() == before
    await attack.holds()


@pytest.mark.representative("15-15")
async def test_a_sparse_file_in_the_filestore_does_not_fill_the_backup_place(attack: Attack) -> None:
    await attack.make()
    sparse = attack.site.directory / "data" / "filestore" / attack.tenant.database / "ab" / "sparse"
    with sparse.open("wb") as file:
        file.truncate(SPARSE)
    await attack.begin(BACKUP_FILESTORE="true")
    assert await attack.ends() in (COMPLETED, ROLLED_BACK)
    backups = attack.place.local.backup_root
    assert sum(path.stat().st_blocks * 512 for path in backups.rglob("*") if path.is_file()) < SPARSE // 4
    await attack.holds()


SPARSE = 600 * 1024 * 1024
