"""Other ways to run one step after another, each in an environment of its own below build/, on the same servers.

A peer is a script in this directory that uses nothing of rehome: `python SCRIPT AMQP_URL DSN MOVES AT_ONCE` prints one
JSON document: the seconds of each step of moves one at a time, and of many at once the seconds of all steps, divided by
their number.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.engine.ours import Timing
from benchmarks.report import say
from rehome_consumer.errors import RehomeError
from sandbox.platform.local import ROOT
from sandbox.system.processes import run

HERE: Final = Path(__file__).parent
INSTALL_SECONDS: Final = 400.0
PLAY_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Peer:
    """One of them.

    Attributes:
        title: what it is called in the table, with its version once it is installed.
        packages: what pip installs.
        guarantee: what holds when the process dies.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    guarantee: str


PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer(
            "dbos",
            "DBOS",
            ("dbos", "psycopg[binary]"),
            "each step's result is recorded before the next begins; PostgreSQL alone, no bus, no other service is told",
        ),
        Peer(
            "celery",
            "Celery chain",
            ("celery",),
            "at least once (quorum queue, acks late, confirms); no journal, no outbox, no claim",
        ),
        Peer(
            "faststream",
            "FastStream",
            ("faststream[rabbit]",),
            "at least once (quorum queues, confirms), next message published by hand; no journal, no outbox, no claim",
        ),
    )
}


async def prepared(name: str) -> Peer | None:
    """The peer, installed, its versions in the title; None where that is not possible, which is said."""
    peer = PEERS[name]
    environment = ROOT / "build" / "peers" / name
    python = environment / "bin" / "python"
    try:
        if not (environment / "complete").exists():
            await run([sys.executable, "-m", "venv", str(environment)], limit=120)
            await run([str(python), "-m", "pip", "install", "--quiet", *peer.packages], limit=INSTALL_SECONDS)
            (environment / "complete").touch()
        package = peer.packages[0].partition("[")[0]
        version = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
        found = (await run([str(python), "-c", version], limit=30)).strip()
    except (RehomeError, OSError, RuntimeError, TimeoutError) as error:
        say(f"engine: {peer.title} is left out, it cannot be installed: {str(error)[-300:]}")
        return None
    return replace(peer, title=f"{peer.title} {found}")


async def played(peer: Peer, url: str, dsn: str, moves: int, at_once: int) -> tuple[Timing, Timing] | None:
    """One move at a time, then many at once; None when it failed, which is said."""
    python = ROOT / "build" / "peers" / peer.name / "bin" / "python"
    command = [str(python), str(HERE / f"{peer.name}_steps.py"), url, dsn, str(moves), str(at_once)]
    try:
        found = json.loads((await run(command, limit=PLAY_SECONDS)).splitlines()[-1])
    except (RehomeError, OSError, RuntimeError, TimeoutError, ValueError, IndexError) as error:
        say(f"engine: {peer.title} is left out, it did not work: {str(error)[-300:]}")
        return None
    return Timing(found["seconds"]), Timing(each=found["each"])
