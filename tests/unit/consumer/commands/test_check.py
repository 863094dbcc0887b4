"""What `rehome check` says of odoo.conf and the service besides the four options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rehome_consumer.commands import check
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
