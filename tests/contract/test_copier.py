"""Port `Copier`, on the fake and on real servers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from rehome_consumer.errors import Conflict, NotFound, NotOurs, Refused
from rehome_consumer.model import DEFINITIONS, Credentials, Scope, Secret
from sandbox.postgres.tenants import nasty_password
from tests.contract.servers import A_ROW_MORE, Change, ProgressRecorder, new_tag, verified
from tests.support.comparing import compared

if TYPE_CHECKING:
    from rehome_consumer.model import Backup, Fingerprint, OwnershipTag
    from sandbox.postgres.tenants import Tenant
    from tests.contract.servers import Stage

ROWS = {"public.res_partner": 200}
VERSIONS = {"server": "150018", "client": "15"}
LIMIT = timedelta(seconds=20)


async def a_backup(stage: Stage, tenant: Tenant) -> Backup:
    """The fenced tenant's sealed backup."""
    name = f"{uuid4()}-1"
    await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
    await stage.copier.dump(stage.pool, tenant.database, tenant.role, name, ProgressRecorder())
    return await stage.copier.seal(name, ROWS, VERSIONS)


async def a_scratch(stage: Stage, tenant: Tenant, tag: OwnershipTag, role: str = "acme") -> str:
    """An empty scratch database of this migration, owned by a role with another name than on the pool."""
    found = await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
    facts = replace(found, owner=tenant.role)  # the database may be fenced
    name = f"{tenant.database}__rehome"
    login = Credentials(role, Secret(nasty_password()))
    await stage.databases.make_role(stage.dedicated, login, facts.role, facts.grantees)
    await stage.databases.make_scratch(stage.dedicated, name, facts, role, tag)
    return name


async def found_differences(stage: Stage, tenant: Tenant, copy: str, role: str = "acme") -> list[str]:
    return await compared(
        stage.verifier, (stage.pool, tenant.database, tenant.role), (stage.dedicated, copy, role)
    )


async def test_the_version_of_client_programs_and_the_free_bytes_are_reported(stage: Stage) -> None:
    servers = [await stage.databases.server_facts(server) for server in (stage.pool, stage.dedicated)]
    assert await stage.copier.client_version() in {facts.major for facts in servers}
    assert await stage.copier.free_bytes() > 0


async def test_a_dump_of_a_snapshot_holds_what_was_there_when_it_was_taken(stage: Stage) -> None:
    tenant, tag = await stage.add_tenant(), new_tag()
    place = stage.pool, tenant.database, tenant.role

    async def dumped_later(snapshot: str) -> tuple[Backup, Fingerprint]:
        await stage.change(tenant.database, A_ROW_MORE)
        scope = Scope(snapshot=snapshot, jobs=2)
        await stage.copier.dump(*place, f"{tag.migration_id}-1", ProgressRecorder(), scope)
        return await stage.copier.seal(f"{tag.migration_id}-1", {}, {}), await stage.verifier.fingerprint(
            *place
        )

    before = await stage.verifier.fingerprint(*place)
    backup, after = await stage.verifier.with_snapshot(*place, dumped_later)
    copy = await a_scratch(stage, tenant, tag)
    await stage.copier.restore(stage.dedicated, copy, backup, "acme", ProgressRecorder())
    restored = await stage.verifier.fingerprint(stage.dedicated, copy, "acme")
    assert (restored.tables, restored.rows) == (before.tables, after.rows - 1)


async def test_a_dump_without_rows_holds_every_definition(stage: Stage) -> None:
    tenant, tag = await stage.add_tenant(), new_tag()
    place, name = (stage.pool, tenant.database, tenant.role), f"{tag.migration_id}-1"
    await stage.copier.dump(*place, name, ProgressRecorder(), Scope(rows=False))
    copy = await a_scratch(stage, tenant, tag)
    await stage.copier.restore(
        stage.dedicated, copy, await stage.copier.seal(name, {}, {}), "acme", ProgressRecorder()
    )
    assert await compared(stage.verifier, place, (stage.dedicated, copy, "acme"), DEFINITIONS) == []
    assert (await stage.verifier.fingerprint(stage.dedicated, copy, "acme")).rows == 0


async def test_a_restored_database_does_not_differ_from_the_dumped_one(stage: Stage) -> None:
    tenant, tag = await stage.add_tenant(), new_tag()
    backup = await a_backup(stage, tenant)
    scratch = await a_scratch(stage, tenant, tag)
    await stage.copier.restore(stage.dedicated, scratch, backup, "acme", ProgressRecorder())
    assert await found_differences(stage, tenant, scratch) == []
    await stage.databases.promote(stage.dedicated, scratch, tenant.database, "acme", verified(tag))
    assert await found_differences(stage, tenant, tenant.database) == []


async def test_the_role_may_have_the_same_name_on_both_servers(stage: Stage) -> None:
    tenant, tag = await stage.add_tenant(), new_tag()
    backup = await a_backup(stage, tenant)
    scratch = await a_scratch(stage, tenant, tag, tenant.role)
    await stage.copier.restore(stage.dedicated, scratch, backup, tenant.role, ProgressRecorder())
    assert await found_differences(stage, tenant, scratch, tenant.role) == []


async def test_progress_is_reported_to_its_end(stage: Stage) -> None:
    tenant, tag = await stage.add_tenant(), new_tag()
    dumping, restoring = ProgressRecorder(), ProgressRecorder()
    name = f"{uuid4()}-1"
    await stage.copier.dump(stage.pool, tenant.database, tenant.role, name, dumping)
    backup = await stage.copier.seal(name, ROWS, VERSIONS)
    scratch = await a_scratch(stage, tenant, tag)
    await stage.copier.restore(stage.dedicated, scratch, backup, "acme", restoring)
    for recorder in (dumping, restoring):
        done, total = recorder.reported[-1]
        assert done == total > 0


# Backups


async def test_a_dump_is_a_backup_only_when_it_is_sealed(stage: Stage) -> None:
    tenant, name = await stage.add_tenant(), f"{uuid4()}-1"
    with pytest.raises(Conflict, match=name):
        await stage.copier.seal(name, ROWS, VERSIONS)
    await stage.copier.dump(stage.pool, tenant.database, tenant.role, name, ProgressRecorder())
    assert await stage.copier.backup(name) is None
    sealed = await stage.copier.seal(name, ROWS, VERSIONS)
    assert await stage.copier.backup(name) == sealed
    assert (sealed.id, sealed.place.name) == (name, name)
    assert sealed.bytes > 0
    assert sealed.files > 1
    assert len(sealed.manifest_sha256) == 64
    assert sealed.started_at <= sealed.ended_at


async def test_dumping_and_sealing_again_changes_nothing(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    backup = await a_backup(stage, tenant)
    await stage.copier.dump(stage.pool, tenant.database, tenant.role, backup.id, ProgressRecorder())
    assert await stage.copier.seal(backup.id, {}, {}) == backup
    assert await stage.copier.backup(backup.id) == backup


async def test_dumping_again_before_the_seal_takes_the_newer_dump(stage: Stage) -> None:
    tenant, tag, name = await stage.add_tenant(), new_tag(), f"{uuid4()}-1"
    await stage.copier.dump(stage.pool, tenant.database, tenant.role, name, ProgressRecorder())
    await stage.change(tenant.database, ONE_MORE)
    await stage.copier.dump(stage.pool, tenant.database, tenant.role, name, ProgressRecorder())
    backup = await stage.copier.seal(name, ROWS, VERSIONS)
    scratch = await a_scratch(stage, tenant, tag)
    await stage.copier.restore(stage.dedicated, scratch, backup, "acme", ProgressRecorder())
    assert await found_differences(stage, tenant, scratch) == []


ONE_MORE = Change(
    "INSERT INTO public.import_log VALUES (now(), 'new')",
    lambda database: database.tables["public.import_log"].append(("now", "new")),
)


async def test_a_missing_database_cannot_be_dumped(stage: Stage) -> None:
    tenant, name = await stage.add_tenant(), f"{uuid4()}-1"
    with pytest.raises(NotFound, match="no_such"):
        await stage.copier.dump(stage.pool, "no_such", tenant.role, name, ProgressRecorder())
    assert await stage.copier.backup(name) is None


async def test_an_altered_backup_is_refused_and_the_file_named(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    backup = await a_backup(stage, tenant)
    file = await stage.damage(backup)
    with pytest.raises(Refused, match=file):
        await stage.copier.backup(backup.id)


async def test_a_discarded_backup_is_removed_and_may_be_made_again(stage: Stage) -> None:
    tenant, name = await stage.add_tenant(), f"{uuid4()}-1"
    await stage.copier.discard(name)
    await stage.copier.dump(stage.pool, tenant.database, tenant.role, name, ProgressRecorder())
    await stage.copier.discard(name)
    with pytest.raises(Conflict):
        await stage.copier.seal(name, ROWS, VERSIONS)
    await stage.copier.dump(stage.pool, tenant.database, tenant.role, name, ProgressRecorder())
    await stage.copier.seal(name, ROWS, VERSIONS)
    for _ in range(2):
        await stage.copier.discard(name)
    assert await stage.copier.backup(name) is None


@pytest.mark.parametrize("name", ["", "../elsewhere", "a/b", ".hidden", "a b", "x\n", "a\0"])
async def test_a_backup_id_that_could_lead_elsewhere_is_refused(stage: Stage, name: str) -> None:
    with pytest.raises(Refused, match="backup id"):
        await stage.copier.dump(stage.pool, "postgres", "postgres", name, ProgressRecorder())
    with pytest.raises(Refused, match="backup id"):
        await stage.copier.backup(name)
    with pytest.raises(Refused, match="backup id"):
        await stage.copier.discard(name)


# Restores


async def test_restoring_again_changes_nothing(stage: Stage) -> None:
    tenant, tag = await stage.add_tenant(), new_tag()
    backup = await a_backup(stage, tenant)
    scratch = await a_scratch(stage, tenant, tag)
    for _ in range(2):
        await stage.copier.restore(stage.dedicated, scratch, backup, "acme", ProgressRecorder())
    assert await found_differences(stage, tenant, scratch) == []


async def test_a_restore_that_was_cut_off_must_start_from_an_empty_database(stage: Stage) -> None:
    tenant, tag = await stage.add_tenant(), new_tag()
    backup = await a_backup(stage, tenant)
    scratch = await a_scratch(stage, tenant, tag)
    await stage.cut_off_restore(scratch, backup, "acme")
    assert await stage.databases.connections(stage.dedicated, scratch, "acme") == 0
    with pytest.raises(Conflict, match="empty"):
        await stage.copier.restore(stage.dedicated, scratch, backup, "acme", ProgressRecorder())
    with pytest.raises(Conflict, match="restore"):
        await stage.databases.promote(stage.dedicated, scratch, tenant.database, "acme", verified(tag))
    await a_scratch(stage, tenant, tag)
    await stage.copier.restore(stage.dedicated, scratch, backup, "acme", ProgressRecorder())
    assert await found_differences(stage, tenant, scratch) == []


async def test_nothing_is_restored_into_a_database_that_is_not_this_migrations(stage: Stage) -> None:
    tenant, tag = await stage.add_tenant(), new_tag()
    backup = await a_backup(stage, tenant)
    scratch = await a_scratch(stage, tenant, tag)
    await stage.add_database(stage.dedicated, "strange", "acme")
    new_tag()
    for database in (scratch, "strange"):
        with pytest.raises(NotOurs, match=database):
            await stage.copier.restore(stage.dedicated, database, backup, "acme", ProgressRecorder())


async def test_nothing_is_restored_into_a_promoted_database(stage: Stage) -> None:
    tenant, tag = await stage.add_tenant(), new_tag()
    backup = await a_backup(stage, tenant)
    scratch = await a_scratch(stage, tenant, tag)
    await stage.copier.restore(stage.dedicated, scratch, backup, "acme", ProgressRecorder())
    await stage.databases.promote(stage.dedicated, scratch, tenant.database, "acme", verified(tag))
    with pytest.raises(NotOurs, match="verified"):
        await stage.copier.restore(stage.dedicated, tenant.database, backup, "acme", ProgressRecorder())
    assert await found_differences(stage, tenant, tenant.database) == []


async def test_a_missing_backup_is_named(stage: Stage) -> None:
    tenant, tag = await stage.add_tenant(), new_tag()
    backup = await a_backup(stage, tenant)
    scratch = await a_scratch(stage, tenant, tag)
    await stage.copier.discard(backup.id)
    with pytest.raises(NotFound, match=backup.id):
        await stage.copier.restore(stage.dedicated, scratch, backup, "acme", ProgressRecorder())
