"""What `rehome check` says of odoo.conf, the service and servers, and whether its verdict is true."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.commands import check, rehearsing
from rehome_consumer.model import Hours
from tests.support.steps import StepRig

if TYPE_CHECKING:
    from rehome_consumer.commands.check import Finding


@pytest.fixture
async def rig() -> StepRig:
    made = StepRig()
    await made.opened()
    return made


async def settings(rig: StepRig, text: bytes) -> list[Finding]:
    """The findings `settings` with these further lines of odoo.conf."""
    (path,) = rig.site.odoo_conf.files
    rig.site.odoo_conf.files[path] += text
    ports, instance = rig.site.ports(await rig.facts()), rig.site.instance(rig.instance)
    target = await ports.platform.dedicated_server(rig.instance)
    return await check._settings(ports, instance, rig.site.pool, target)


async def test_what_is_rewritten_and_what_is_suspicious_has_a_line_each(rig: StepRig) -> None:
    text = b"[queue_job]\njobrunner_db_host = postgres-pool-1\n[x]\nurl = //postgres-pool-1/x\n"
    rewritten, warning = await settings(rig, text)
    assert (rewritten.ok, rewritten.warning) == (True, False)
    assert rewritten.detail.endswith("rewritten: queue_job.jobrunner_db_host")
    assert (warning.ok, warning.warning, warning.mark) == (True, True, "warn")
    assert "url in [x] names the pool" in warning.detail


async def test_where_there_is_nothing_else_one_line_says_so(rig: StepRig) -> None:
    (found,) = await settings(rig, b"")
    assert found.detail.endswith("rewritten: nothing")


async def test_what_forbids_the_move_fails_the_check_also_without_a_dedicated_server(rig: StepRig) -> None:
    rig.service.spec["env"]["PGHOSTADDR"] = "10.0.0.1"
    (found,) = await settings(rig, b"db_sslmode = require\n")
    assert not found.ok
    assert "PGHOSTADDR" in found.detail
    assert "db_sslmode" not in found.detail  # is compared when there is a server


async def test_tls_is_compared_where_there_is_a_dedicated_server(rig: StepRig) -> None:
    rig.site.add_dedicated(rig.instance)
    (found,) = await settings(rig, b"db_sslmode = require\n")
    assert (found.ok, "offers no TLS" in found.detail) == (False, True)


async def attached(rig: StepRig) -> list[Finding]:
    found = [check.Finding("source", ok=True, detail="")]
    ports = rig.site.ports(await rig.facts())
    await check._attached(found, ports, rig.site.instance(rig.instance), rig.site.pool)
    return found[1:]


async def test_each_program_that_hangs_on_the_database_is_a_warning(rig: StepRig) -> None:
    rig.source.databases["acme"].attached += ["publication changes", "logical replication slot cdc"]
    found = await attached(rig)
    assert [(one.mark, one.detail) for one in found] == [
        ("warn", "database acme on postgres-pool-1: publication changes"),
        ("warn", "database acme on postgres-pool-1: logical replication slot cdc"),
    ]


async def test_where_nothing_hangs_on_the_database_one_line_says_so(rig: StepRig) -> None:
    (found,) = await attached(rig)
    assert (found.mark, found.detail) == ("ok", "no other program or login uses the database")


async def findings(rig: StepRig) -> dict[str, Finding]:
    ports, instance = rig.site.ports(await rig.facts()), rig.site.instance(rig.instance)
    return {one.check: one for one in await check._findings(ports, instance, rig.site.pool, None)}


async def test_client_programs_that_cannot_read_the_pool_fail_the_check_before_there_is_a_server(
    rig: StepRig,
) -> None:
    assert (await findings(rig))["source"].ok
    rig.site.world.client = 14
    found = (await findings(rig))["source"]
    assert (found.ok, "they read no newer server" in found.detail) == (False, True)


async def test_a_rehearsal_that_must_wait_for_its_hours_says_nothing_about_the_move(rig: StepRig) -> None:
    rig.site.add_dedicated(rig.instance)
    now = rig.site.clock.now()
    later = Hours((now + timedelta(hours=1)).time(), (now + timedelta(hours=2)).time())
    rig.site.policy = replace(rig.site.policy, rehearsal_hours=later)
    ports, instance = rig.site.ports(await rig.facts()), rig.site.instance(rig.instance)
    found = await check._rehearsal(None, ports, instance, rig.site.pool, None)  # type: ignore[arg-type] # unused
    assert (found.ok, found.detail.startswith("not done: rehearsals run from ")) == (False, True)
    passed, failed = check.Finding("source", ok=True, detail=""), check.Finding("room", ok=False, detail="")
    assert check._verdict([passed]) == "a move would pass its checks"
    assert check._verdict([passed, found]).startswith("whether a move would pass its checks is not known")
    assert check._verdict([passed, found, failed]) == "a move would fail its checks, and stop nothing"


async def test_a_rehearsal_beside_others_restores_with_as_few_sessions_as_it_reads(rig: StepRig) -> None:
    rig.site.add_dedicated(rig.instance)
    ports, instance = rig.site.ports(await rig.facts()), rig.site.instance(rig.instance)
    own = await ports.platform.dedicated_server(rig.instance)
    assert own
    assert await rehearsing._restore_jobs(ports, instance, own) is None  # as many as the move
    assert await rehearsing._restore_jobs(ports, instance, rig.site.pool) == ports.policy.rehearsal_jobs
    ports = replace(ports, policy=replace(ports.policy, rehearsal_restore_jobs=7))
    assert await rehearsing._restore_jobs(ports, instance, rig.site.pool) == 7
