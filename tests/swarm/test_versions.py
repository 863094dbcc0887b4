"""The version of the engine's API: agreed once, newest first, and again when another engine answers."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

import aiodocker
import pytest

from rehome_consumer.adapters.swarm.versions import OLDEST
from rehome_consumer.errors import Incompatible
from rehome_events.parts import Limits
from sandbox.swarm.engine import PrivateEngine
from tests.contract.runtime_stages import new_instance
from tests.swarm.newer_engine import OtherVersions
from tests.swarm.stage import SwarmStage

if TYPE_CHECKING:
    from pathlib import Path

MINIMUM_CAN_BE_SET = (1, 44)
"""Docker 25, the first that reads DOCKER_MIN_API_VERSION, and the oldest version that Docker 29 still has."""


async def test_the_newest_version_of_the_engine_is_used_and_logged(
    stage: SwarmStage, engine: PrivateEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    there = await engine.ask("GET", "version")
    instance = await stage.add(replicas=0)
    await stage.swarm.find(instance)
    await stage.swarm.find(instance)
    assert stage.docker.api_version == f"v{there['ApiVersion']}"
    lines = [record.getMessage() for record in caplog.records if "engine.version" in record.getMessage()]
    assert lines == [
        f"engine.version docker={there['Version']} api={there['ApiVersion']} oldest={there['MinAPIVersion']}"
    ]


async def test_an_engine_without_the_older_versions_is_used(stage: SwarmStage, engine: PrivateEngine) -> None:
    there = OtherVersions(engine, oldest=(1, 44), newest=(1, 52))
    async with there.serving() as host:
        await stage.reach_engine_at(host)
        instance = await stage.add(replicas=0)
        await stage.swarm.start(instance, 1, Limits(cpu_limit=0.5))
        assert await stage.swarm.require_can_run(instance, None) == ()
        await stage.swarm.resize(instance, Limits(cpu_limit=1.0))
        await stage.swarm.stop(instance)
        assert there.asked.count("/version") == 1
        assert [path for path in there.asked if not path.startswith(("/v1.52/", "/version"))] == []
        await stage.docker.close()


async def test_the_proxy_of_these_tests_refuses_as_docker_29_does(engine: PrivateEngine) -> None:
    async with OtherVersions(engine, oldest=(1, 44), newest=(1, 52)).serving() as host:
        docker = aiodocker.Docker(url=host, api_version="v1.41")
        with pytest.raises(aiodocker.DockerError, match=r"client version 1\.41 is too old"):
            await docker.services.list()
        await docker.close()


async def test_an_engine_that_was_replaced_by_another_release_is_asked_for_its_version_again(
    stage: SwarmStage, engine: PrivateEngine
) -> None:
    there = OtherVersions(engine, oldest=(1, 24), newest=(1, 43))
    async with there.serving() as host:
        await stage.reach_engine_at(host)
        instance = await stage.add(replicas=0)
        await stage.swarm.find(instance)
        there.versions = ((1, 44), (1, 52))  # updated
        await stage.swarm.find(instance)
        there.versions = ((1, 24), (1, 45))  # and back
        await stage.swarm.find(instance)
        assert stage.docker.api_version == "v1.45"
        await stage.docker.close()


async def test_an_engine_that_is_too_old_is_named_with_what_to_do(
    stage: SwarmStage, engine: PrivateEngine
) -> None:
    newest = (OLDEST[0], OLDEST[1] - 1)
    async with OtherVersions(engine, oldest=(1, 12), newest=newest).serving() as host:
        await stage.reach_engine_at(host)
        with pytest.raises(
            Incompatible,
            match=r"^Docker engine 99\.1\.2 has the API up to version 1\.40; rehome needs 1\.41 "
            r"\(Docker 20\.10\) or newer: update Docker, or .* DOCKER_HOST$",
        ):
            await stage.swarm.find(new_instance())
        await stage.docker.close()


async def test_a_real_engine_with_a_raised_minimum_is_used(
    engine: PrivateEngine, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = (await engine.ask("GET", "version"))["ApiVersion"]
    if tuple(map(int, newest.split("."))) < MINIMUM_CAN_BE_SET:
        pytest.skip(
            f"this machine's Docker (API {newest}) has no setting for its oldest version; Docker 25 has"
        )
    monkeypatch.setitem(os.environ, "DOCKER_MIN_API_VERSION", "1.44")
    picky = PrivateEngine(scratch / "picky")
    try:
        await picky.create()
        assert (await picky.ask("GET", "version"))["MinAPIVersion"] == "1.44"
        old = await picky.http.get("/v1.41/services")
        assert (old.status_code, "too old" in old.text) == (400, True)
        stage = await SwarmStage.open(picky, tmp_path)
        instance = await stage.add(replicas=0)
        await stage.swarm.start(instance, 1, Limits(cpu_limit=0.5))
        await stage.swarm.stop(instance)
        await stage.close()
    finally:
        await picky.destroy()
        await asyncio.sleep(0)
