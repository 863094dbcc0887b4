"""The private engine changes nothing on the machine, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.swarm.api import CONSUMER_IMAGE
from sandbox.swarm.engine import remove_orphaned_cgroups
from sandbox.system.net import wait_until
from tests.support.processes import have_ended, orphan_of

if TYPE_CHECKING:
    from sandbox.swarm.engine import PrivateEngine

LIMIT = 60


async def test_when_its_process_is_killed_the_kernel_ends_the_engine_and_its_containers(
    scratch: Path,
) -> None:
    init, process = await orphan_of(
        """
        engine = PrivateEngine(directory / "engine")
        await engine.create()
        made = definition("sleeper", await engine.network(), command=["sleep", "600"])
        await engine.ask("POST", "services/create", made)
        while not await engine.ask("GET", "containers/json"):
            await asyncio.sleep(0.1)
        print(engine.init, os.getpid(), flush=True)
        """,
        directory=scratch / "orphan",
        imports="from sandbox.swarm.definitions import definition\nfrom sandbox.swarm.engine import PrivateEngine",
    )
    # When the first process of a process namespace has ended, so has everything in it.
    await wait_until(have_ended(init), what="the engine's namespaces to end", limit=LIMIT)
    assert cgroups_of(process) != []
    await asyncio.to_thread(remove_orphaned_cgroups)
    assert cgroups_of(process) == []


async def test_the_consumers_image_has_the_settings_of_the_dockerfile(engine: PrivateEngine) -> None:
    config = (await engine.ask("GET", f"images/{CONSUMER_IMAGE}/json"))["Config"]
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == ("rehome", ["rehome"], ["run"])
    assert "/startupz" in config["Healthcheck"]["Test"][-1]
    assert "REHOME_HTTP_PORT=8080" in config["Env"]


def test_it_has_a_network_of_its_own(engine: PrivateEngine) -> None:
    own = Path(f"/proc/{engine.init}/ns/net").readlink()
    assert own != Path("/proc/self/ns/net").readlink()
    assert "docker_gwbridge" in Path(f"/proc/{engine.init}/net/dev").read_text()


def cgroups_of(process: int) -> list[Path]:
    """Control groups of the engine that a process has made."""
    return list(Path("/sys/fs/cgroup").glob(f"*/rehome-swarm-{process}-*"))
