"""Complete moves through the real chain: downtime, seconds per step, and the consumer's own memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks.report import MEBIBYTE, Table, say
from sandbox.platform.billing import Billing
from sandbox.platform.local import local_platform
from sandbox.platform.subscriber import ENDS, Subscriber
from sandbox.postgres.tenants import Tenant, inflate
from sandbox.system.processes import memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sandbox.platform.local import LocalPlatform

PLAN: Final = "premium-monthly"
LIMIT_SECONDS: Final = 1800.0
MOST_MEMORY: Final = 150.0
"""MiB that the consumer may use itself, however large the database."""
DOWN: Final = ("stop", "back_up", "provision", "rewrite_conf", "restore", "start")
"""The steps during which the instance is down."""


class TooMuchMemoryError(Exception):
    """The consumer's own memory grew beyond its limit."""


@dataclass(frozen=True)
class Move:
    """The measurements of one move; `memory` is the consumer's own at its highest, in MiB, without subprocesses."""

    size: float
    downtime: float
    seconds: Mapping[str, float]
    memory: float


async def measure(directory: Path, scales: Sequence[float]) -> list[Table]:
    """One customer per scale, moved one after the other, each by a consumer of its own.

    Raises:
        TooMuchMemoryError: a consumer used more than MOST_MEMORY.
    """
    tenants = {scale: Tenant(f"acme{number}") for number, scale in enumerate(scales)}
    moves: dict[float, Move] = {}
    async with local_platform(directory, list(tenants.values())) as local:
        for scale, tenant in tenants.items():
            if scale:
                await inflate(local.pool, tenant, scale=scale)
            moves[scale] = await _move(local, tenant)
            say(
                f"move, scale {scale:g}: downtime {moves[scale].downtime:.1f} s, {moves[scale].memory:.0f} MiB"
            )
    table = _table(moves)
    large = [
        f"scale {scale:g}: {move.memory:.0f} MiB"
        for scale, move in moves.items()
        if move.memory > MOST_MEMORY
    ]
    if large:
        say(table)
        raise TooMuchMemoryError(f"the consumer may use {MOST_MEMORY:.0f} MiB itself; {', '.join(large)}")
    return [table]


async def _move(local: LocalPlatform, tenant: Tenant) -> Move:
    site = await local.add_site(tenant)
    await local.wait_until_serving(site)
    billing = Billing(local.broker.url(), local.platform.instance_dsn, local.platform.billing_dsn)
    async with Subscriber(local.broker.url()) as subscriber, local.consumer() as consumer:
        await billing.upgrade(site.id, PLAN)
        last: Any = await subscriber.wait_for(*ENDS, instance_id=site.id, limit=LIMIT_SECONDS)
        if last.type != "migration.completed":
            raise RuntimeError(f"the move ended in {last.type}: {getattr(last.data, 'reason', '')}")
        peak = memory(consumer.pid, "VmHWM")
    if peak is None:
        raise RuntimeError("the consumer ended before its memory was read")
    return Move(
        last.data.database_bytes / MEBIBYTE,
        last.data.downtime_seconds,
        dict(last.data.seconds),
        peak / MEBIBYTE,
    )


def _table(moves: Mapping[float, Move]) -> Table:
    table = Table(
        "A complete move, from billing's event to migration.completed", ("", *(f"scale {s:g}" for s in moves))
    )
    found = moves.values()
    table.rows.append(("database, MB", *(f"{move.size:.0f}" for move in found)))
    table.rows.append(("downtime, s", *(move.downtime for move in found)))
    table.rows.append(("downtime, ms per MB", *(f"{1000 * move.downtime / move.size:.0f}" for move in found)))
    for step in DOWN:
        table.rows.append((f"{step}, s", *(move.seconds.get(step, 0.0) for move in found)))
    table.rows.append(
        ("prepare, s (the instance serves)", *(move.seconds.get("prepare", 0.0) for move in found))
    )
    table.rows.append(
        ("consumer's own memory at its highest, MiB", *(f"{move.memory:.0f}" for move in found))
    )
    return table
