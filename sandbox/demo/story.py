"""How the demo shows what it observes: a line per event, a table at the end, or one JSON document."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from rehome_events.printable import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from rehome_events.envelope import CloudEvent
    from rehome_events.parts import Rehearsal
    from sandbox.demo.observation import Observation

MB: Final = 1_000_000

FACTS: Final[dict[str, Callable[[Any], str]]] = {
    "instance.resized": lambda d: f"cpu {d.limits.cpu_limit:g}, memory {d.limits.memory_limit}",
    "migration.requested": lambda d: (
        f"{d.database}, {d.database_bytes / MB:.0f} MB, from {d.source.name} to a {d.target_kind} server"
    ),
    "migration.prepared": lambda d: (
        f"{d.target.name} {'provisioned' if d.provisioned_now else 'found'}; {len(d.checks)} checks passed"
        + (f"; rehearsed in {_seconds(d.rehearsal):.1f} s" if d.rehearsal else "")
        + ("; warm" if d.strategy == "warm" else f"; cold: {d.strategy_reason}")
    ),
    "migration.stopped": lambda d: f"{d.connections_ended} connections ended, source fenced",
    "migration.backed_up": lambda d: (
        f"{d.bytes / MB:.0f} MB in {d.files} files"
        + (" from before the stop" if d.content == "before_stop" else "")
    ),
    "migration.provisioned": lambda d: f"role {d.role} (no login yet), database {d.scratch_database}",
    "migration.conf_rewritten": lambda d: f"changed {', '.join(d.changed)}",
    "migration.restored": lambda d: (
        f"verified: {d.verified.tables} tables, {d.verified.rows} rows, digest {d.verified.digest[:12]}"
    ),
    "migration.started": lambda d: f"healthy at {d.url}",
    "migration.completed": lambda d: f"downtime {d.downtime_seconds:.1f} s, now on {d.target.name}",
    "migration.rejected": lambda d: f"{d.reason}: {d.message}",
    "migration.failed": lambda d: f"step {d.step}: {d.error}: {d.message}; next: {d.next.replace('_', ' ')}",
    "migration.rolled_back": lambda d: (
        f"back on {d.source.name}; undone: {', '.join(d.undone)}"
        + (f"; left over: {'; '.join(d.leftovers)}" if d.leftovers else "")
    ),
}


def _seconds(rehearsal: Rehearsal) -> float:
    return rehearsal.dump_seconds + rehearsal.restore_seconds + rehearsal.compare_seconds


def event_line(event: CloudEvent[Any], seconds: float) -> str:
    """`<type> +<seconds> <facts>`."""
    facts = FACTS.get(event.type, lambda _: "")(event.data)
    return visible(f"{event.type:<25} +{seconds:5.1f}  {facts}")


@dataclass(frozen=True)
class Check:
    """Something that must hold at the end."""

    what: str
    holds: bool
    detail: str = ""


@dataclass
class Story:
    """Everything the demo found out.

    Attributes:
        events: type, seconds after the upgrade was published, and data of each event, in order.
        before, after: the moved instance.
        checks: what must hold; the demo succeeds if all do.
        seconds: per step; downtime_seconds as the consumer reports it, customer_gap_seconds as writers measured it.
    """

    outcome: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    before: Observation | None = None
    after: Observation | None = None
    conf_diff: list[str] = field(default_factory=list)
    downtime_seconds: float | None = None
    customer_gap_seconds: float = 0.0
    other_gap_seconds: float = 0.0
    writes: int = 0
    other_writes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return bool(self.checks) and all(check.holds for check in self.checks)

    def document(self) -> dict[str, Any]:
        """As JSON; of odoo.conf only the differences, the password masked."""
        found = asdict(self)
        for moment in ("before", "after"):
            if found[moment] is not None:
                del found[moment]["conf"]
        return {"ok": self.ok, **found}

    def show(self, console: Console) -> None:
        """The summary as tables."""
        console.print()
        if self.before is not None and self.after is not None:
            console.print(_before_after(self.before, self.after))
        for line in self.conf_diff:
            console.print(visible(f"odoo.conf {line}"), markup=False)
        if self.seconds:
            steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
            console.print(f"seconds   {steps}", markup=False)
        downtime = f"{self.downtime_seconds:.1f} s" if self.downtime_seconds is not None else "none"
        console.print(
            f"downtime  {downtime}; its users saw a gap of {self.customer_gap_seconds:.1f} s between two writes, "
            f"the other tenant's of {self.other_gap_seconds:.2f} s"
        )
        console.print()
        for check in self.checks:
            result = "[green]holds[/]" if check.holds else "[bold red]FAILS[/]"
            console.print(f"{result}  {check.what}{': ' if check.detail else ''}", end="")
            console.print(visible(check.detail), markup=False)
        console.print(f"\n{self.outcome}: " + ("all of it holds" if self.ok else "NOT all of it holds"))


def _before_after(before: Observation, after: Observation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "before", "after"):
        table.add_column(column)
    rows: list[tuple[str, Any, Any]] = [
        ("connections on the pool", before.on_pool, after.on_pool),
        ("connections on the dedicated server", before.on_dedicated, after.on_dedicated),
        ("users", before.users, after.users),
        ("partners", before.partners, after.partners),
        ("database.uuid", before.uuid, after.uuid),
    ]
    rows += [
        (f"record: {name}", value, after.record[name])
        for name, value in before.record.items()
        if value != after.record[name]
    ]
    names = sorted({*before.counts, *after.counts})
    rows += [(f"instances on {name}", before.counts.get(name), after.counts.get(name)) for name in names]
    for name, old, new in rows:
        table.add_row(*(Text(visible("-" if value is None else str(value))) for value in (name, old, new)))
    return table
