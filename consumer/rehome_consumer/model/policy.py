"""What steps decide by, and one of their answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rehome_consumer.model.window import Hours, Window


@dataclass(frozen=True, slots=True)
class Policy:
    """The few settings that steps decide by.

    Attributes:
        fence_limit: how long ending the tenant's connections may take.
        transaction_limit: how long the tenant's open transactions may take to end by themselves before that.
        cutover: whether the instance's old tasks must be gone before the copy is opened (`careful`), or the new one
            starts beside those that are still ending (`quick`).
        room_factor: free bytes required at the backup place, as a multiple of the database's size.
        dumps_per_server: migrations whose instance may be down for a dump of the same server at a time.
        down_at_once: instances that moves may have stopped at a time, over all servers; None: no limit.
        retention: how long the fenced source stays after a completed move.
        rehearse: how much is moved once before anything is stopped: everything, definitions only, or nothing.
        rehearse_up_to: bytes; of a larger database only the definitions are rehearsed. None: no limit.
        rehearsal_jobs: parallel sessions that read the source for a rehearsal.
        rehearsal_restore_jobs: parallel sessions that restore and analyze its copy; None: as many as for a move.
        rehearsal_nice: how much the client programs of a rehearsal give way to other processes, 0 to 19.
        rehearsals_per_server: rehearsals that read the same source at a time.
        rehearsal_hours: when a rehearsal may begin; None: at any time.
        windows: when instances may be stopped; none: at any time.
        strategy: `auto`: the rehearsal's copy follows its source until the stop, where that is possible (a warm move);
            `cold`: the data is copied after the stop.
        sync_limit: how long the copy may take to catch up with its source, before the stop.
        sync_lag: how far behind it may be when it counts as caught up.
        sync_last: how long it may take to reach the source's last position, after the stop.
        sync_age: how long a copy may follow its source altogether.
        sync_keep: bytes of WAL that a source's server may keep for it.
    """

    fence_limit: timedelta = timedelta(seconds=60)
    transaction_limit: timedelta = timedelta(seconds=5)
    cutover: Literal["careful", "quick"] = "careful"
    room_factor: float = 1.2
    dumps_per_server: int = 2
    down_at_once: int | None = None
    retention: timedelta = timedelta(days=7)
    rehearse: Literal["full", "definitions", "off"] = "full"
    rehearse_up_to: int | None = None
    rehearsal_jobs: int = 2
    rehearsal_restore_jobs: int | None = None
    rehearsal_nice: int = 10
    rehearsals_per_server: int = 1
    rehearsal_hours: Hours | None = None
    windows: tuple[Window, ...] = ()
    strategy: Literal["auto", "cold"] = "auto"
    sync_limit: timedelta = timedelta(minutes=30)
    sync_lag: timedelta = timedelta(seconds=2)
    sync_last: timedelta = timedelta(seconds=10)
    sync_age: timedelta = timedelta(hours=6)
    sync_keep: int = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """A step's answer when everything is as the event asks already; the reason goes to journal and log."""

    reason: str
