"""Every event of the contract, in one table; schemas, documents, bindings and checks are derived from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from events import migration as m
from events.billing import PlanUpgraded
from events.data import EventData
from events.errors import UnknownType

Model = type[EventData]

_SHOWN: Final = 80


@dataclass(frozen=True)
class EventType:
    """One type of event in one version.

    Attributes:
        type: Name of the type, which is also the routing key.
        model: What its data looks like.
        version: Number of its schema.
        exchange: Topic exchange that carries it.
        source: CloudEvents source of whoever publishes it.
        published_by: Who publishes it.
        readers: Who may read it.
        summary: What it says, in one sentence.
        next: The handler that goes on from it; None when nothing follows.
    """

    type: str
    model: Model
    version: int
    exchange: Literal["billing", "migration"]
    source: str
    published_by: str
    readers: tuple[str, ...]
    summary: str
    next: str | None


def _ours(model: type[EventData], follow_up: str | None, summary: str, *readers: str) -> EventType:
    everyone = ("rehome", *readers) if follow_up else readers
    return EventType(
        model.TYPE, model, model.VERSION, "migration", "/migrations", "rehome", everyone, summary, follow_up
    )


_ALL: Final = (
    EventType(
        PlanUpgraded.TYPE,
        PlanUpgraded,
        PlanUpgraded.VERSION,
        "billing",
        "/billing",
        "billing",
        ("rehome",),
        "A paid upgrade took effect; the instance is to get what the new plan grants.",
        "accept",
    ),
    _ours(
        m.InstanceResized,
        None,
        "The plan kept its kind of database: CPU, memory and storage are applied, nothing was moved.",
        "subscribers",
    ),
    _ours(m.MigrationRequested, "prepare", "A migration was opened; nothing was touched yet.", "subscribers"),
    _ours(
        m.MigrationPrepared,
        "stop",
        "Every check that needs no downtime passed, and the dedicated server is healthy.",
        "subscribers",
    ),
    _ours(
        m.MigrationStopped,
        "back_up",
        "The instance is down and its source database is fenced.",
        "subscribers",
    ),
    _ours(
        m.MigrationBackedUp,
        "provision",
        "A complete backup of the fenced source is on the shared storage.",
        "subscribers",
    ),
    _ours(
        m.MigrationProvisioned,
        "rewrite_conf",
        "The dedicated server has the tenant's role, barred from logging in, and an empty database.",
        "subscribers",
    ),
    _ours(
        m.MigrationConfRewritten,
        "restore",
        "odoo.conf and the service environment point to the dedicated server.",
        "subscribers",
    ),
    _ours(
        m.MigrationRestored,
        "start",
        "The data is on the dedicated server, and verified against the fenced source.",
        "subscribers",
    ),
    _ours(
        m.MigrationStarted,
        "complete",
        "The instance answers over HTTP on its new database: the point of no return is passed.",
        "subscribers",
    ),
    _ours(m.MigrationCompleted, None, "The migration succeeded: downtime, seconds, servers.", "subscribers"),
    _ours(m.MigrationRejected, None, "The upgrade was refused before anything was touched.", "subscribers"),
    _ours(m.MigrationFailed, "roll_back", "A step failed for good, or used up its attempts.", "subscribers"),
    _ours(
        m.MigrationRolledBack,
        None,
        "The instance runs on the shared pool again, its data untouched.",
        "subscribers",
    ),
)

CATALOG: Final[Mapping[str, EventType]] = MappingProxyType({entry.type: entry for entry in _ALL})
"""The current version of every type, in the order of a migration."""

_VERSIONS: Final[Mapping[tuple[str, int], EventType]] = MappingProxyType(
    {(entry.type, entry.version): entry for entry in _ALL}
)


def lookup(type: str, version: int | None = None) -> EventType:  # noqa: A002 - the attribute's name in CloudEvents
    """The entry of a type.

    Args:
        type: Name of the type, such as ``migration.completed``.
        version: Number of its schema; None for the current one.

    Raises:
        UnknownType: This release knows no such type, or not in this version.
    """
    if type not in CATALOG:
        raise UnknownType(f"unknown event type {ascii(type)[:_SHOWN]}")
    if version is None:
        return CATALOG[type]
    try:
        return _VERSIONS[type, version]
    except KeyError:
        raise UnknownType(f"unknown version {version} of event type {type!r}") from None
