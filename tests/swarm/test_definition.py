"""What an update leaves of a definition with everything that Swarm knows."""

from __future__ import annotations

import base64
import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.adapters.swarm import spec as edit
from rehome_events.parts import Limits
from sandbox.swarm.definitions import HEALTH_CHECK, SECOND
from tests.swarm.shop import DEDICATED, Shop, environment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox.postgres.server import Cluster
    from sandbox.swarm.engine import PrivateEngine
    from tests.swarm.stage import SwarmStage

LIMITS = Limits(cpu_limit=1.0, memory_limit="1G")
MB = 1024**2


@pytest.fixture
async def full_shop(
    stage: SwarmStage, engine: PrivateEngine, servers: dict[str, Cluster]
) -> AsyncIterator[Shop]:
    """An instance whose service has secret, config, health check, constraints, log options and more."""
    content = {"Name": "shop-key", "Data": base64.b64encode(b"key").decode()}
    secret = (await engine.ask("POST", "secrets/create", content))["ID"]
    config = (await engine.ask("POST", "configs/create", {**content, "Name": "shop-config"}))["ID"]
    try:
        shop = await Shop.open(stage)
        await stage.edit(shop.instance, lambda spec: everything(spec, secret, config))
        await stage.swarm.start(shop.instance, 1, None)
        yield shop
    finally:
        await stage.remove_services()
        await engine.ask("DELETE", f"secrets/{secret}")
        await engine.ask("DELETE", f"configs/{config}")


def everything(spec: dict[str, Any], secret: str, config: str) -> dict[str, Any]:
    full = copy.deepcopy(spec)
    template = full["TaskTemplate"]
    file = {"UID": "0", "GID": "0", "Mode": 292}
    template["ContainerSpec"] |= {
        "Hostname": "shop",
        "Dir": "/opt/rehome",
        "Healthcheck": HEALTH_CHECK,
        "StopGracePeriod": 20 * SECOND,
        "StopSignal": "SIGTERM",
        "Hosts": ["192.0.2.1 mail.example.com"],
        "DNSConfig": {"Search": ["example.com"], "Options": ["ndots:0"]},
        "Secrets": [{"File": {"Name": "key", **file}, "SecretID": secret, "SecretName": "shop-key"}],
        "Configs": [{"File": {"Name": "/config", **file}, "ConfigID": config, "ConfigName": "shop-config"}],
        "Sysctls": {"net.ipv4.ip_local_port_range": "32768 60999"},
        "CapabilityAdd": ["CAP_NET_RAW"],
        "Ulimits": [{"Name": "nofile", "Soft": 4096, "Hard": 8192}],
        "OpenStdin": True,
    }
    template["ContainerSpec"]["Mounts"].append(
        {"Type": "tmpfs", "Target": "/cache", "TmpfsOptions": {"SizeBytes": 8 * MB}}
    )
    template["Placement"] |= {
        "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
        "MaxReplicas": 2,
    }
    template["RestartPolicy"] = {"Condition": "any", "Delay": SECOND, "MaxAttempts": 7, "Window": 60 * SECOND}
    template["LogDriver"] = {"Name": "json-file", "Options": {"max-size": "1m"}}
    template["Networks"][0]["Aliases"] = ["shop.internal"]
    full["RollbackConfig"] = {
        "Parallelism": 1,
        "FailureAction": "pause",
        "MaxFailureRatio": 0.5,
        "Order": "stop-first",
    }
    return full


async def test_a_move_changes_limits_and_four_variables_of_a_definition(
    full_shop: Shop, stage: SwarmStage
) -> None:
    instance = full_shop.instance
    before = await stage.spec(instance)
    await stage.swarm.stop(instance)
    full_shop.write_conf(DEDICATED)
    await stage.swarm.configure(instance, environment(DEDICATED))
    await stage.swarm.start(instance, 1, LIMITS)
    expected = edit.with_limits(edit.with_env(before, environment(DEDICATED)), LIMITS)
    assert await stage.spec(instance) == expected
    limits = expected["TaskTemplate"]["Resources"]["Limits"]
    assert limits == {"NanoCPUs": SECOND, "MemoryBytes": 1024 * MB, "Pids": 500}
    assert edit.env_of(expected) == {**edit.env_of(before), "ODOO_DATABASE_HOST": DEDICATED}


async def test_a_restored_definition_is_the_original_to_the_last_field(
    full_shop: Shop, stage: SwarmStage
) -> None:
    instance = full_shop.instance
    before = await stage.spec(instance)
    journal = json.dumps(dict((await stage.swarm.find(instance)).spec))
    await stage.swarm.stop(instance)
    await stage.swarm.configure(instance, environment(DEDICATED))
    await stage.swarm.start(instance, 1, LIMITS)
    await stage.swarm.restore_spec(instance, json.loads(journal))
    await stage.swarm.stop(instance)
    assert await stage.containers(instance) == []
    assert await stage.spec(instance) == edit.with_replicas(before, 0)
    await stage.swarm.start(instance, 1, None)
    assert await stage.spec(instance) == before
