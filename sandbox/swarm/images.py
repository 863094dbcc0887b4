"""The sandbox's two images, without a registry: a root copied from this machine, imported once.

`rehome-sandbox:latest` replaces Bitnami's Odoo image, and runs PostgreSQL and database-service as well;
`rehome-sandbox:consumer` is the same root with the settings of the Dockerfile's last stage, so that the consumer
starts in the sandbox as in production: `rehome run`, with the Dockerfile's environment and health check.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox.swarm.api import CONSUMER_IMAGE, IMAGE
from sandbox.swarm.root import LIBRARIES, PROJECT, write_root

if TYPE_CHECKING:
    from sandbox.swarm.api import EngineApi

DOCKERFILE = Path(__file__).parent.parent.parent / "Dockerfile"

# As in Bitnami's image: where the instance's directory is mounted, and the port that it serves on.
_INSTANCE_SETTINGS = [
    f"ENV PATH=/usr/local/bin:/usr/bin:/usr/sbin PYTHONPATH={PROJECT}:{LIBRARIES} PYTHONDONTWRITEBYTECODE=1",
    "ENV INSTANCE_DIR=/bitnami/odoo ODOO_HTTP_ADDRESS=0.0.0.0 ODOO_HTTP_PORT=8069",
    'CMD ["python3", "-m", "sandbox.odoo.instance"]',
    f"WORKDIR {PROJECT}",
]

# An image's settings; its files come from the root.
_SETTING = re.compile(r"(ENV|USER|HEALTHCHECK|ENTRYPOINT|CMD) ")
_STAGE = re.compile(r"FROM (?P<base>\S+) AS (?P<name>\S+)")


async def import_images(engine: EngineApi, directory: Path) -> None:
    """Make both images; meanwhile `directory` holds the root, about 250 MB.

    Raises:
        RuntimeError: the engine refuses; has its words.
    """
    archive = directory / "root.tar"
    try:
        await asyncio.to_thread(write_root, archive)
        await _import(engine, archive)
    finally:
        archive.unlink(missing_ok=True)
    made = await engine.ask("POST", "containers/create", {"Image": IMAGE, "Cmd": ["true"]})
    repo, _, tag = CONSUMER_IMAGE.partition(":")
    committed = {"container": made["Id"], "repo": repo, "tag": tag}
    settings = consumer_settings(DOCKERFILE.read_text(encoding="utf-8"))
    await engine.ask("POST", "commit", params={**committed, "changes": "\n".join(settings)})
    await engine.ask("DELETE", f"containers/{made['Id']}")


def consumer_settings(dockerfile: str) -> list[str]:
    """The settings of the Dockerfile's last stage and of those that it is built on, in their order."""
    stages: dict[str, list[str]] = {}
    name = ""
    for line in dockerfile.replace("\\\n", " ").splitlines():
        if stage := _STAGE.match(line):
            name = stage["name"]
            stages[name] = list(stages.get(stage["base"], ()))
        elif name and _SETTING.match(line):
            stages[name].append(line)
    return stages[name]


async def _import(engine: EngineApi, archive: Path) -> None:
    async def content() -> Any:
        with archive.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, 1 << 20):
                yield piece

    repo, _, tag = IMAGE.partition(":")
    answer = await engine.http.post(
        "/images/create",
        params={"fromSrc": "-", "repo": repo, "tag": tag, "changes": _INSTANCE_SETTINGS},
        content=content(),
    )
    if answer.is_error or "error" in answer.text:
        raise RuntimeError(f"the image could not be imported: {answer.text.strip()}")
