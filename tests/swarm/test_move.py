"""Events from start to end on a swarm: consumer, servers and instances are services with service names."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.demo.observation import observe
from sandbox.platform.billing import Billing
from sandbox.platform.subscriber import Subscriber
from sandbox.postgres.tenants import Tenant
from sandbox.swarm.platform import swarm_platform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandbox.platform.local import Site
    from sandbox.swarm.engine import PrivateEngine
    from sandbox.swarm.platform import SwarmPlatform

LIMIT = 300
PLAN = "premium-monthly"
SHOP, CAFE, BAR = Tenant("shop"), Tenant("cafe"), Tenant("bar")
GIANT = "giant-monthly"

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
async def platform(engine: PrivateEngine, scratch: Path) -> AsyncIterator[SwarmPlatform]:
    """The platform with a consumer; its services end with the engine."""
    directory = scratch / "platform"
    directory.mkdir(mode=0o711)
    async with swarm_platform(directory, [SHOP, CAFE, BAR], engine=engine) as platform, platform.consumer():
        yield platform


@pytest.fixture
async def subscriber(platform: SwarmPlatform) -> AsyncIterator[Subscriber]:
    async with Subscriber(platform.broker.url()) as subscriber:
        yield subscriber


@pytest.fixture
def billing(platform: SwarmPlatform) -> Billing:
    return Billing(platform.broker.url(), platform.platform.instance_dsn, platform.platform.billing_dsn)


async def serving(platform: SwarmPlatform, tenant: Tenant, **columns: object) -> Site:
    site = await platform.add_site(tenant, **columns)
    await platform.wait_until_serving(site)
    return site


async def service_of(platform: SwarmPlatform, site: Site) -> dict[str, Any]:
    service: dict[str, Any] = await platform.engine.ask("GET", f"services/{site.service}")
    return service


async def test_a_move_whose_odoo_conf_is_deleted_fails_and_is_rolled_back_and_the_next_upgrade_completes(
    platform: SwarmPlatform, billing: Billing, subscriber: Subscriber
) -> None:
    site = await serving(platform, SHOP)
    before, spec = await observe(platform, site), (await service_of(platform, site))["Spec"]
    # Given an odoo.conf that is deleted while the instance is down
    await billing.upgrade(site.id, PLAN)
    await subscriber.wait_for("migration.conf_rewritten", instance_id=site.id, limit=LIMIT)
    site.conf.unlink()
    # Then the failure says how the container ended, in its own words
    failed = await subscriber.wait_for("migration.failed", instance_id=site.id, limit=LIMIT)
    assert failed.data.step == "start"
    assert "exit code 255" in failed.data.message
    assert "/bitnami/odoo/conf/odoo.conf: No such file or directory" in failed.data.message
    # and everything is as it was, the definition of the service to the last field
    await subscriber.wait_for("migration.rolled_back", instance_id=site.id, limit=LIMIT)
    after = await observe(platform, site)
    assert (after.record, after.conf) == (before.record, before.conf)
    assert (after.uuid, after.users, after.on_pool > 0) == (before.uuid, before.users, True)
    assert (await service_of(platform, site))["Spec"] == spec
    # When the customer upgrades again
    await billing.upgrade(site.id, PLAN)
    last = await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
    # Then the instance is moved, and the record says where it runs and is reached
    moved, service = await observe(platform, site), await service_of(platform, site)
    row = await platform.platform.fetch_instance(site.id)
    assert (moved.on_pool, moved.on_dedicated > 0, moved.uuid) == (0, True, before.uuid)
    assert row["db_host"] == last.data.target.name
    assert row["service_id"] == service["ID"]
    assert row["internal_url"] == f"http://{site.service}:8069"
    assert row["external_url"] == f"http://{SHOP.database}.example.com"
    assert f"ODOO_DATABASE_HOST={row['db_host']}" in service["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"]


async def test_an_upgrade_on_the_pool_resizes_the_running_service_and_moves_nothing(
    platform: SwarmPlatform, billing: Billing, subscriber: Subscriber
) -> None:
    site = await serving(platform, CAFE, plan_tier="basic", cpu_limit=1, memory_limit="2G")
    await billing.upgrade(site.id, "standard-monthly")
    event = await subscriber.wait_for("instance.resized", instance_id=site.id, limit=LIMIT)
    limits = (await service_of(platform, site))["Spec"]["TaskTemplate"]["Resources"]["Limits"]
    cpu = event.data.limits.cpu_limit
    assert (limits["NanoCPUs"], limits["MemoryBytes"]) == (round(cpu * 1e9), 4 * 1024**3)
    row = await platform.platform.fetch_instance(site.id)
    assert (float(row["cpu_limit"]), row["memory_limit"], row["storage_limit"]) == (cpu, "4G", "20G")
    # The storage limit cannot be enforced here, and a warning says so.
    (warning,) = event.data.warnings
    assert warning.startswith(f"the storage limit 20G is not enforced on {site.directory}: ")
    assert subscriber.types(site.id) == ["instance.resized"]
    assert (await observe(platform, site)).on_pool > 0


async def containers_of(platform: SwarmPlatform, site: Site) -> list[tuple[str, str]]:
    """Id and start of the instance's containers."""
    found = await platform.engine.ask("GET", "containers/json")
    name = "com.docker.swarm.service.name"
    ids = [one["Id"] for one in found if one["Labels"].get(name) == site.service]
    details = [await platform.engine.ask("GET", f"containers/{one}/json") for one in ids]
    return [(one["Id"], one["State"]["StartedAt"]) for one in details]


async def check(platform: SwarmPlatform, site: Site, *more: str) -> tuple[int, str]:
    """`rehome check`: exit code and output."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "rehome_consumer", "check", str(site.id), *more),
        env={**os.environ, **platform.settings(), "COLUMNS": "300"},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await child.communicate()
    return child.returncode or 0, out.decode()


async def test_a_plan_with_more_cpus_than_any_node_has_stops_nothing(
    platform: SwarmPlatform, billing: Billing, subscriber: Subscriber
) -> None:
    site = await serving(platform, BAR)
    # Given a plan that no node can run
    info = await platform.engine.ask("GET", "info")
    cpus, most = info["NCPU"], min(2 * info["NCPU"], 99)
    async with platform.platform.cluster.connect(platform.platform.billing_database) as connection:
        await connection.execute(
            "INSERT INTO plan_entitlements (plan_name, effective_date, cpu_limit, memory_limit, storage_limit, "
            "db_type) VALUES ($1, '2024-01-01', $2, '1G', '10G', 'dedicated')",
            GIANT,
            most,
        )
    words = f"service {site.service} cannot run with {most} CPUs: on "
    # Then rehome check says so, and that the instance as it is would pass
    code, out = await check(platform, site, "--plan", GIANT)
    assert (code, words in out.replace("\n" + " " * 20, " ")) == (1, True), out
    assert "a move would fail its checks, and stop nothing" in out
    assert (await check(platform, site))[0] == 0
    # When the customer upgrades to it
    running = await containers_of(platform, site)
    assert running
    await billing.upgrade(site.id, GIANT)
    failed = await subscriber.wait_for("migration.failed", instance_id=site.id, limit=LIMIT)
    assert (failed.data.step, failed.data.error, failed.data.tries) == ("prepare", "Incompatible", 1)
    assert failed.data.message.startswith(words)
    assert f"there are only {cpus} CPUs available" in failed.data.message
    await subscriber.wait_for("migration.rolled_back", instance_id=site.id, limit=LIMIT)
    # Then the same container has served all the time
    assert await containers_of(platform, site) == running
    assert "migration.stopped" not in subscriber.types(site.id)
    assert (await observe(platform, site)).on_pool > 0
