"""The runtime asks the engine for what docs/swarm.md lists, and for nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from consumer.errors import CrashLoop, Incompatible, NotFound
from events.parts import Limits
from tests.contract.runtime_stages import new_instance

if TYPE_CHECKING:
    from tests.swarm.stage import SwarmStage

DOCS = Path(__file__).parent.parent.parent / "docs" / "swarm.md"
RULE = re.compile(r'^ *"~(\^\S+ \S+\$)" 1;$', re.MULTILINE)


async def test_a_proxy_with_the_documented_rules_lets_all_requests_through_and_has_no_rule_too_many(
    stage: SwarmStage,
) -> None:
    rules = RULE.findall(DOCS.read_text())
    instance = await stage.add("crashing once", limits={"cpu": 0.5})
    kept = (await stage.swarm.find(instance)).spec
    await stage.swarm.start(instance, 1, None)
    await stage.swarm.resize(instance, Limits(cpu_limit=1.0))
    await stage.swarm.stop(instance)
    await stage.swarm.configure(instance, {"TINY_CRASHES": "1000"})
    with pytest.raises(CrashLoop):
        await stage.swarm.start(instance, 1, None)
    await stage.swarm.put_back(instance, kept)
    with pytest.raises(NotFound):
        await stage.swarm.find(new_instance())
    assert [asked for asked in stage.docker.asked if not any(re.match(rule, asked) for rule in rules)] == []
    assert [rule for rule in rules if not any(re.match(rule, asked) for asked in stage.docker.asked)] == []


async def test_a_request_that_a_proxy_refuses_is_named(stage: SwarmStage) -> None:
    instance = await stage.add(replicas=0)
    stage.docker.refused = "/update"
    with pytest.raises(
        Incompatible, match=rf"POST /services/{instance.service}/update.*HTTP 403.*docs/swarm\.md"
    ):
        await stage.swarm.configure(instance, {"A": "1"})
