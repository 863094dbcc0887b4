"""Which instances of a pool a drain moves, in which order, and why not the others. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID, uuid5

from rehome_consumer.model import TERMINATED
from rehome_consumer.steps.accept import BUSY
from rehome_events.billing import PlanUpgraded
from rehome_events.envelope import new_event

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from rehome_consumer.model import Instance, Server
    from rehome_consumer.ports.operators import MigrationView, Resident
    from rehome_events.envelope import CloudEvent
    from rehome_events.parts import Entitlements

Verdict = Literal["moves", "under_way", "left_out"]
VERDICTS: Final[tuple[Verdict, ...]] = ("moves", "under_way", "left_out")
UPGRADES: Final = UUID("0f4c8f0c-6f0e-4a55-9a3c-5f0a6d0c4f61")
"""Namespace of the ids of a drain's events."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One instance of the pool.

    Attributes:
        verdict: whether the drain moves it, it is being moved already, or is left out.
        bytes: size of its database; None: not known, or it is not there.
        migration: the one that is under way, or its last one.
        why: why it is left out.
    """

    resident: Resident
    verdict: Verdict
    bytes: int | None
    migration: MigrationView | None = None
    why: str = ""

    @property
    def instance(self) -> Instance:
        """The record."""
        return self.resident.instance

    @property
    def rolled_back(self) -> MigrationView | None:
        """An earlier move that was rolled back, if its last one was."""
        found = self.migration
        return found if found is not None and found.state == "rolled_back" else None

    @property
    def needs_operator(self) -> bool:
        """Whether the migration that is under way waits for an operator."""
        return self.verdict == "under_way" and self.migration is not None and self.migration.state == "failed"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        open_, undone = self.migration if self.verdict == "under_way" else None, self.rolled_back
        return {
            "instance": self.instance.id,
            "name": self.instance.name,
            "database": self.instance.database,
            "status": self.instance.status,
            "bytes": self.bytes,
            "verdict": self.verdict,
            "why": self.why or None,
            "migration": {"id": open_.id, "state": open_.state} if open_ else None,
            "rolled_back": {"id": undone.id, "at": undone.ended_at, "reason": undone.reason}
            if undone
            else None,
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is published for each instance."""

    to_plan: str
    plan_tier: str
    entitlements: Entitlements
    not_before: datetime | None = None
    priority: int | None = None

    def data(self, instance_id: UUID, customer_id: UUID, subscription_id: UUID) -> PlanUpgraded:
        """What the upgrade of an instance says."""
        return PlanUpgraded(
            instance_id=instance_id,
            customer_id=customer_id,
            subscription_id=subscription_id,
            from_plan="unknown",
            to_plan=self.to_plan,
            plan_tier=self.plan_tier,
            entitlements=self.entitlements,
            not_before=self.not_before,
            priority=self.priority,
        )

    def event(self, resident: Resident, last: UUID | None, now: datetime) -> CloudEvent[PlanUpgraded]:
        """The upgrade of one instance.

        Its id follows from what it says and from the instance's last migration of any kind: two drains that publish it
        at the same time, or one that does not know whether the broker got it, open one migration.
        """
        instance = resident.instance
        data = self.data(instance.id, instance.customer_id, resident.subscription_id or instance.id)
        said = data.model_dump_json(exclude={"priority"} if self.priority is None else None)
        identity = uuid5(UPGRADES, f"{last} {said}")
        return new_event(data, subject=instance.id, id=identity, time=now, source="/billing")


def plan(
    server: Server,
    residents: Iterable[Resident],
    sizes: Mapping[str, int],
    moves: Iterable[MigrationView],
    *,
    again: bool,
) -> list[Entry]:
    """The plan: those that would be moved, the smallest database first, then those under way, then the others.

    Args:
        server: the pool.
        residents: the instances whose record says that their database is on it.
        sizes: bytes by database, of those that are there.
        moves: of each instance its migration that is open, its upgrade that waits, or its last migration.
        again: whether those are moved, too, whose last move was rolled back.
    """
    # In this order what is open comes last, an upgrade that waits for it before it: so that it is what counts.
    ordered = sorted(moves, key=lambda one: (not one.ended, one.behind is None, one.created_at))
    known = {one.instance_id: one for one in ordered}
    entries = [_entry(server, one, sizes, known.get(one.instance.id), again=again) for one in residents]
    return sorted(entries, key=_place)


def _place(one: Entry) -> tuple[int, bool, int, str, UUID]:
    return (
        VERDICTS.index(one.verdict),
        one.bytes is None,
        one.bytes or 0,
        one.instance.name,
        one.instance.id,
    )


def _entry(
    server: Server, one: Resident, sizes: Mapping[str, int], last: MigrationView | None, *, again: bool
) -> Entry:
    size = sizes.get(one.instance.database)
    if last is not None and not last.ended:
        return Entry(one, "under_way", size, last)
    why = _why_left_out(server, one, size, last, again=again)
    return Entry(one, "left_out" if why else "moves", size, last, why)


def _why_left_out(
    server: Server, one: Resident, size: int | None, last: MigrationView | None, *, again: bool
) -> str:
    instance = one.instance
    if instance.status == TERMINATED:
        return "it is terminated: the customer has left"
    if instance.status == "creating":
        return "it is still being created"
    if one.ambiguous:
        return (
            f"its record names no db_server_id, and several servers are at its db_host {instance.db_host}: write the "
            "right one into instances.db_server_id"
        )
    if size is None:
        return f"there is no database {instance.database} on {server.name}; rehome doctor {instance.id}"
    if instance.status in BUSY:
        return f"it is {instance.status}: another process is at work on it"
    if last is not None and last.state == "rolled_back" and not again:
        return "its last move was rolled back: --again moves it all the same"
    return ""


def sums(entries: Collection[Entry]) -> dict[str, dict[str, int]]:
    """How many instances, and how many bytes, by verdict."""
    found: dict[str, dict[str, int]] = {}
    for verdict in VERDICTS:
        of = [one for one in entries if one.verdict == verdict]
        found[verdict] = {"instances": len(of), "bytes": sum(one.bytes or 0 for one in of)}
    return found
