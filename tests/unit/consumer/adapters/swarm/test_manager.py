"""Whether the Docker engine can be asked to change services at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiodocker
import pytest

from rehome_consumer.adapters.swarm.engine import Engine
from rehome_consumer.errors import Incompatible, Transient, Unreachable

if TYPE_CHECKING:
    from rehome_consumer.errors import RehomeError


class Docker:
    """Answers `GET /info` with this, or raises it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []

    async def _query_json(self, path: str, *, method: str, **_: Any) -> Any:
        self.asked.append((method, path))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_a_manager_is_ready_and_is_asked_once() -> None:
    docker = Docker({"Swarm": {"LocalNodeState": "active", "ControlAvailable": True}, "Name": "node-1"})
    await Engine(docker, patience=0).require_manager()  # type: ignore[arg-type] # as far as requests go
    assert docker.asked == [("GET", "info")]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (
            {"Swarm": {"LocalNodeState": "active", "ControlAvailable": False}},
            Incompatible,
            "its node is active",
        ),
        ({"Swarm": {"LocalNodeState": "", "ControlAvailable": False}}, Incompatible, "its node is inactive"),
        ({}, Incompatible, "no manager of a swarm"),
        ({"Swarm": {"ControlAvailable": "yes"}}, Transient, r"Swarm\.ControlAvailable"),
        (aiodocker.DockerError(900, "Cannot connect"), Unreachable, "GET /info: Cannot connect"),
        (aiodocker.DockerError(403, "forbidden"), Incompatible, "docs/swarm.md"),
    ],
    ids=["worker", "in none", "an old engine", "wrong type", "gone", "a proxy"],
)
async def test_what_is_no_manager_says_so(answer: Any, error: type[RehomeError], words: str) -> None:
    with pytest.raises(error, match=words):
        await Engine(Docker(answer), patience=60).require_manager()  # type: ignore[arg-type]
