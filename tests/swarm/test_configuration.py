"""What makes an instance use another server, as measured on the hosted image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.errors import CrashLoop
from rehome_events.parts import Limits
from tests.swarm.shop import DEDICATED, POOL, Shop, environment

if TYPE_CHECKING:
    from tests.swarm.stage import SwarmStage


async def test_the_environment_alone_does_not_move_an_instance(shop: Shop, stage: SwarmStage) -> None:
    await stage.swarm.stop(shop.instance)
    await stage.swarm.configure(shop.instance, environment(DEDICATED))
    await stage.swarm.start(shop.instance, 1, None)
    assert (await stage.swarm.find(shop.instance)).env["ODOO_DATABASE_HOST"] == DEDICATED
    assert (await shop.facts())["database_uuid"] == POOL


async def test_odoo_conf_and_environment_move_it_with_one_start(shop: Shop, stage: SwarmStage) -> None:
    first = {task["ID"] for task in await stage.tasks(shop.instance)}
    await stage.swarm.stop(shop.instance)
    shop.write_conf(DEDICATED)
    await stage.swarm.configure(shop.instance, environment(DEDICATED))
    stage.docker.updates = 0
    healthy = await stage.swarm.start(shop.instance, 1, Limits(cpu_limit=1.0, memory_limit="1G"))
    assert (await shop.facts())["database_uuid"] == DEDICATED
    assert {task["ID"] for task in await stage.tasks(shop.instance)} - first == {healthy.task}
    assert stage.docker.updates == 1


async def test_a_missing_odoo_conf_is_reported_with_the_containers_own_words(
    shop: Shop, stage: SwarmStage
) -> None:
    await stage.swarm.stop(shop.instance)
    shop.conf.unlink()
    with pytest.raises(CrashLoop) as caught:
        await stage.swarm.start(shop.instance, 1, None)
    assert "exit code 255" in str(caught.value)
    assert "/bitnami/odoo/conf/odoo.conf: No such file or directory" in str(caught.value)
    shop.write_conf(POOL)
    await stage.swarm.stop(shop.instance)
    await stage.swarm.start(shop.instance, 1, None)


async def test_a_service_made_for_its_first_boot_skips_the_bootstrap_from_then_on(
    shop: Shop, stage: SwarmStage
) -> None:
    await stage.swarm.stop(shop.instance)
    await stage.edit(shop.instance, _first_boot)
    written = shop.conf.read_text()
    await stage.swarm.configure(shop.instance, environment(DEDICATED))
    await stage.swarm.start(shop.instance, 1, None)
    assert shop.conf.read_text() == written
    assert (await shop.facts())["database_uuid"] == POOL


async def test_healthy_says_where_the_instance_is_inside_and_outside(shop: Shop, stage: SwarmStage) -> None:
    healthy = await stage.swarm.start(shop.instance, 1, None)
    service = await stage.swarm.find(shop.instance)
    assert healthy.service_id == service.id
    assert healthy.internal_url == f"http://{shop.instance.service}:8069"
    assert healthy.external_url == "http://shop.example.com"


def _first_boot(spec: dict[str, Any]) -> dict[str, Any]:
    container = spec["TaskTemplate"]["ContainerSpec"]
    container["Env"] = [entry for entry in container["Env"] if not entry.startswith("ODOO_SKIP_BOOTSTRAP")]
    return spec
