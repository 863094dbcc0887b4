"""The demo on an engine that others use, at DOCKER_HOST: it works the same, and leaves the engine as it was."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.swarm.api import IMAGE, NETWORK
from sandbox.swarm.borrowed import borrowed
from sandbox.swarm.definitions import definition
from sandbox.swarm.engine import PrivateEngine, private_engine
from sandbox.swarm.root import libraries_of
from sandbox.system.net import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT_SECONDS = 900
FOREIGN_IMAGE = "foreign:1"
SLEEP = Path("/usr/bin/sleep")

# What an engine has, and of each thing the fields that show whether it was changed.
LISTS = {
    "services": ("ID", "Version", "Spec"),
    "tasks": ("ID", "DesiredState"),
    "containers/json?all=1": ("Id", "State"),
    "networks": ("Id", "Name"),
    "images/json": ("Id", "RepoTags"),
    "secrets": ("ID", "Version"),
    "configs": ("ID", "Version"),
}

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
async def foreign(scratch: Path) -> AsyncIterator[PrivateEngine]:
    """An engine that others use: with a network, an image, a running service, a secret, a config."""
    async with private_engine(scratch / "foreign", furnished=False) as engine:
        network = await engine.ask("POST", "networks/create", {"Name": "theirs", "Driver": "overlay"})
        await engine.http.post(
            "/images/create",
            params={"fromSrc": "-", "repo": "foreign", "tag": "1"},
            content=await asyncio.to_thread(tiny_root),
        )
        command = [str(SLEEP), "3600"]
        service = definition("theirs", network["Id"], command=command, image=FOREIGN_IMAGE)
        await engine.ask("POST", "services/create", service)
        content = {"Name": "theirs", "Data": base64.b64encode(b"theirs").decode()}
        await engine.ask("POST", "secrets/create", content)
        await engine.ask("POST", "configs/create", content)
        await wait_until(lambda: runs(engine), what="the foreign service", limit=60)
        yield engine


async def runs(engine: PrivateEngine) -> bool:
    return any(task["Status"]["State"] == "running" for task in await engine.ask("GET", "tasks"))


def tiny_root() -> bytes:
    """A root with one program, as a tar file."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for path in (SLEEP, *libraries_of([SLEEP])):
            tar.add(path.resolve(), str(path))
    return held.getvalue()


async def snapshot(engine: PrivateEngine) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for what, keys in LISTS.items():
        listed = await engine.ask("GET", what)
        found[what] = sorted(({key: one[key] for key in keys} for one in listed), key=json.dumps)
    found["volumes"] = (await engine.ask("GET", "volumes"))["Volumes"] or []
    return found


async def test_the_demo_on_a_foreign_engine_passes_all_its_checks_and_leaves_the_engine_as_it_was(
    foreign: PrivateEngine,
) -> None:
    before = await snapshot(foreign)
    command = ("-m", "sandbox.demo", "--runtime", "swarm", "--json")
    demo = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "DOCKER_HOST": foreign.host},
    )
    try:
        out, err = await asyncio.wait_for(demo.communicate(), LIMIT_SECONDS)
    finally:
        if demo.returncode is None:
            demo.terminate()  # it removes what it made, as after Ctrl-C
            await demo.wait()
    assert out, err.decode()
    assert f"on the engine at DOCKER_HOST={foreign.host}" in err.decode()
    story = json.loads(out)
    assert [check for check in story["checks"] if not check["holds"]] == []
    assert (story["outcome"], story["ok"], demo.returncode) == ("moved", True, 0)
    assert await snapshot(foreign) == before


async def test_an_engine_that_has_what_the_demo_would_make_is_neither_used_nor_changed(
    foreign: PrivateEngine, scratch: Path
) -> None:
    network = await foreign.ask("POST", "networks/create", {"Name": NETWORK, "Driver": "overlay"})
    repo, _, tag = IMAGE.partition(":")
    await foreign.ask("POST", f"images/{FOREIGN_IMAGE}/tag", params={"repo": repo, "tag": tag})
    try:
        before = await snapshot(foreign)
        engine, message = await borrowed(foreign.host, scratch)
        assert engine is None
        assert message.endswith(
            f"is not used, but a private one: it has these already: network {NETWORK}, image {IMAGE}"
        )
        assert await snapshot(foreign) == before
    finally:
        await foreign.ask("DELETE", f"networks/{network['Id']}")
        await foreign.ask("DELETE", f"images/{IMAGE}")


async def test_an_engine_that_was_borrowed_and_given_back_is_as_it_was(
    foreign: PrivateEngine, scratch: Path
) -> None:
    before = await snapshot(foreign)
    engine, _ = await borrowed(foreign.host, scratch)
    assert engine is not None
    assert await engine.network()
    await engine.destroy()
    assert await snapshot(foreign) == before


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("tcp://127.0.0.1:2375", "it is not a socket of this machine (unix://...)"),
        ("unix:///nowhere/docker.sock", "No such file or directory"),
    ],
)
async def test_an_engine_that_does_not_exist_is_reported_and_replaced(
    host: str, why: str, tmp_path: Path
) -> None:
    engine, message = await borrowed(host, tmp_path)
    assert engine is None
    assert message.startswith(f"the engine at DOCKER_HOST={host} is not used, but a private one: ")
    assert why in message


async def test_without_docker_host_there_is_no_message(tmp_path: Path) -> None:
    assert await borrowed(None, tmp_path) == (None, "")
