"""The faults of a schedule, drawn from its seed: at which boundary, and of which kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, get_args

from rehome_consumer import saga
from rehome_consumer.errors import (
    ChildFailed,
    Conflict,
    Incompatible,
    Refused,
    TimedOut,
    Transient,
    Unreachable,
)

if TYPE_CHECKING:
    from random import Random

Kind = Literal[
    "kill",  # SIGKILL of the consumer; a new one comes later
    "pause",  # SIGSTOP, with the claim's connection perhaps ended meanwhile; SIGCONT later
    "cut",  # the claim's connection ends; the consumer notices later
    "fail",  # the next call that may fail raises a transient error
    "refuse",  # the next call of a step's port is refused for good
    "defect",  # the next call of a step's port raises an unexpected error
    "shutdown",  # SIGTERM; a new consumer comes later
    "node",  # the broker restarts: every delivery is delivered again
    "no_broker",  # publishes fail for a while
    "no_journal",  # the state database does not answer for a while
    "no_target",  # the dedicated servers do not answer for a while
    "lost_ack",  # the next acknowledgement is lost
    "truncate",  # the next restore, or the next copy that followed until the end, loses rows without an error
    "meddle",  # another service scales the instance up
    "garbage",  # a message that is not an event
    "lose",  # the broker accepts the next message for a step or the dead letters, and loses it: an operator must help
    "ahead",  # an event that is not true yet, published by hand
    "unready",  # the consumers lack something of their own for a while
]
Unfollowed = Literal[
    "cannot_stream",  # the pool is not prepared
    "cannot_reach",  # the dedicated server has no way to the pool
    "broken",  # a change cannot be applied
    "slow",  # the copy does not keep up
    "kept",  # the pool keeps more for it than it may
    "slot_gone",  # somebody drops the slot
    "in_use",  # for a while the lock of a customer's table is not had
]
Lacked = Literal["client_programs", "backup_place", "database_service", "runtime", "data_root"]

KINDS: Final[tuple[tuple[Kind, int], ...]] = (
    ("kill", 20),
    ("pause", 12),
    ("cut", 12),
    ("fail", 24),
    ("refuse", 8),
    ("defect", 3),
    ("shutdown", 4),
    ("node", 6),
    ("no_broker", 6),
    ("no_journal", 6),
    ("no_target", 4),
    ("lost_ack", 6),
    ("truncate", 3),
    ("meddle", 4),
    ("garbage", 3),
    ("ahead", 3),
    ("lose", 4),
)
AIMED: Final[tuple[tuple[Kind, int], ...]] = (
    ("kill", 5),
    ("pause", 6),
    ("cut", 3),
    ("fail", 2),
    ("refuse", 6),
    ("defect", 1),
    ("no_target", 1),
    ("lost_ack", 1),
    ("ahead", 3),
    ("lose", 2),
)
"""Kinds of faults at a boundary of a certain step."""

TRANSIENT: Final = (Unreachable, TimedOut, Conflict, ChildFailed, Transient)
PERMANENT: Final = (Refused, Incompatible)
SPANS: Final = (320, 640, 1200, 1700)
"""Faults happen among the first so many boundaries of a tenant's migration: a complete move without faults has
about 1,170, rollbacks and replays come after."""
AT_STEP: Final = 0.35
"""How often a fault is aimed at a step, so that the short ones at the end get their share."""
IN_STEP: Final = 36
"""Boundaries of a step among which it happens then; the shortest step has 15, the longest 54."""
UNREADY: Final = 0.15
"""How often the consumers lack something of their own, for less time than a customer who is down is left waiting."""
PAUSED: Final = 0.2
"""How often operators pause all moves for a while."""
WINDOW: Final = 0.15
"""How often there is a maintenance window, which is closed at first."""
CROWD: Final = 0.1
"""How often there are more tenants than usual."""
UNFOLLOWED: Final = 0.3
"""How often something is wrong with copies that follow."""
UNDONE: Final = 0.5
"""How often the move is then refused in some step, and another fault is aimed at the rollback."""


@dataclass
class Plan:
    """Everything about a schedule that is drawn before it is played.

    Attributes:
        at_boundary: number of a boundary -> the fault there.
        at_step: name of a step -> number of a boundary of its own -> the fault there.
        consumers: how many there are.
        tenants: replicas of each tenant's instance.
        has_server: tenants that have a dedicated server before the move.
        second_upgrade: tenants that get a second upgrade, and when (seconds).
        duplicates: share of messages that arrive twice.
        delays: share of messages that arrive late.
        slow: share of boundaries that take time.
        rolled_back_at: when an operator rolls back by hand (seconds).
        replayed_at: when an operator replays every dead letter (seconds).
        doctored_at: when an operator lets the doctor repair what it finds (seconds).
        moods: how database-service answers.
        takes_back: whether database-service can remove a server.
        gives_login: whether it answers with a login.
        installs: tenants that change definitions, when (seconds), and whether a restore takes them.
        unready: what consumers lack for a while, as (when, for how long in seconds, which part).
        cutover: whether old tasks are waited for before the copy is opened.
        strategy: whether a copy follows its source where it can.
        paused: when operators pause all moves (seconds), and for how long.
        priorities: of each tenant's upgrade.
        prioritized: when an operator gives a migration another priority (seconds), and which.
        opens: when the maintenance window opens (seconds), to stay open for almost a day; None: there is none.
        down_at_once: how many instances may be down at a time; None: no limit.
        unfollowed: why it cannot, or what happens to it, and when (seconds).
    """

    at_boundary: dict[int, Kind] = field(default_factory=dict)
    at_step: dict[str, dict[int, Kind]] = field(default_factory=dict)
    consumers: int = 2
    tenants: list[int] = field(default_factory=lambda: [1])
    has_server: list[int] = field(default_factory=list)
    second_upgrade: list[tuple[int, float]] = field(default_factory=list)
    duplicates: float = 0.0
    delays: float = 0.0
    slow: float = 0.2
    rolled_back_at: list[float] = field(default_factory=list)
    replayed_at: list[float] = field(default_factory=list)
    doctored_at: list[float] = field(default_factory=list)
    moods: list[str] = field(default_factory=list)
    takes_back: bool = True
    gives_login: bool = False
    installs: list[tuple[int, float, bool]] = field(default_factory=list)
    unready: list[tuple[float, float, Lacked]] = field(default_factory=list)
    cutover: Literal["careful", "quick"] = "careful"
    strategy: Literal["auto", "cold"] = "cold"
    paused: list[tuple[float, float]] = field(default_factory=list)
    priorities: list[int | None] = field(default_factory=lambda: [None])
    prioritized: list[tuple[float, int]] = field(default_factory=list)
    opens: float | None = None
    down_at_once: int | None = None
    unfollowed: list[tuple[Unfollowed, float]] = field(default_factory=list)


def plan(random: Random) -> Plan:
    """Draw a plan."""
    tenants = [1 if random.random() < 0.85 else 0 for _ in range(2 if random.random() < 0.12 else 1)]
    span = random.choice(SPANS) * len(tenants)
    kinds, weights = zip(*KINDS, strict=True)
    count = min(int(random.expovariate(0.45)), 9)
    boundaries = random.sample(range(span), count)
    return Plan(
        at_boundary=dict(zip(boundaries, random.choices(kinds, weights, k=count), strict=True)),
        at_step=_aimed(random) if random.random() < AT_STEP else {},
        consumers=random.choice((1, 2, 2, 2, 3)),
        tenants=tenants,
        has_server=[index for index in range(len(tenants)) if random.random() < 0.12],
        second_upgrade=[
            (index, random.expovariate(0.05)) for index in range(len(tenants)) if random.random() < 0.1
        ],
        duplicates=random.choice((0, 0, 0.05, 0.3)),
        delays=random.choice((0, 0, 0.1, 0.4)),
        slow=random.choice((0.02, 0.08, 0.2)),
        rolled_back_at=[random.expovariate(0.02) for _ in range(2) if random.random() < 0.08],
        replayed_at=[random.expovariate(0.003) for _ in range(random.choice((0, 0, 1, 1, 2)))],
        doctored_at=[random.expovariate(0.005) for _ in range(random.choice((0, 0, 0, 1, 2)))],
        moods=[random.choice(("fails", "answers too late", "answers garbage"))]
        if random.random() < 0.1
        else [],
        takes_back=random.random() < 0.9,
        gives_login=random.random() < 0.3,
        installs=[
            (index, random.expovariate(0.05), random.random() < 0.5)
            for index in range(len(tenants))
            if random.random() < 0.15
        ],
    )


def paused(random: Random) -> list[tuple[float, float]]:
    """Draw when moves are paused, and for how long: most upgrades are published at the start."""
    if random.random() >= PAUSED:
        return []
    return [(random.choice((0.0, random.expovariate(0.2))), random.expovariate(0.02))]


def crowd(plan: Plan, random: Random) -> None:
    """Draw how urgent the upgrades are; sometimes there are more tenants, so that several wait for the same slot."""
    if random.random() < CROWD:
        plan.tenants += [1] * random.choice((2, 3))
        plan.prioritized = [
            (random.expovariate(0.05), random.randint(0, 9)) for _ in range(random.choice((0, 1)))
        ]
    plan.priorities = [random.choice((None, random.randint(0, 9))) for _ in plan.tenants]


def opens(random: Random) -> float | None:
    """Draw when the maintenance window opens, if there is one."""
    return random.uniform(5.0, 300.0) if random.random() < WINDOW else None


def unfollowed(random: Random) -> list[tuple[Unfollowed, float]]:
    """Draw what becomes of copies that follow, and when: a move without faults takes some seconds."""
    if random.random() >= UNFOLLOWED:
        return []
    return [
        (random.choice(get_args(Unfollowed)), random.expovariate(0.1))
        for _ in range(random.choice((1, 1, 2)))
    ]


def unready(random: Random) -> list[tuple[float, float, Lacked]]:
    """Draw what consumers lack, and when. A move takes some seconds, and begins again after each of these."""
    if random.random() >= UNREADY:
        return []
    spans = []
    for _ in range(random.choice((1, 1, 2))):
        lasts = random.choice((3.0, 100.0, 300.0, 300.0))
        spans.append((random.expovariate(0.2), lasts, random.choice(get_args(Lacked))))
    return spans


def _aimed(random: Random) -> dict[str, dict[int, Kind]]:
    """A fault in a step, in the last two twice as often; half the time a refusal, and another fault in the rollback."""
    kinds, weights = zip(*AIMED, strict=True)
    forward = random.choice((*saga.MIGRATION[:-1], *saga.MIGRATION[-3:-1])).name
    (kind,) = random.choices(kinds, weights)
    if random.random() >= UNDONE:
        return {forward: {random.randrange(IN_STEP): kind}}
    return {
        forward: {random.randrange(IN_STEP): "refuse"},
        saga.ROLL_BACK.name: {random.randrange(IN_STEP): kind},
    }
