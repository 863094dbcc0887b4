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
        correlated: Whether it always belongs to a migration: ``migrationid`` and ``attempt`` are set.
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
    correlated: bool


def _summary(model: Model) -> str:
    return (model.__doc__ or "").partition("\n")[0]


def _ours(model: Model, handler: str | None, *, correlated: bool = True) -> EventType:
    return EventType(
        type=model.TYPE,
        model=model,
        version=model.VERSION,
        exchange="migration",
        source="/migrations",
        published_by="rehome",
        readers=("rehome", "subscribers") if handler else ("subscribers",),
        summary=_summary(model),
        next=handler,
        correlated=correlated,
    )


# In the order of a migration. Of several versions of a type, the newest stands last.
_ALL: Final = (
    EventType(
        type=PlanUpgraded.TYPE,
        model=PlanUpgraded,
        version=PlanUpgraded.VERSION,
        exchange="billing",
        source="/billing",
        published_by="billing",
        readers=("rehome",),
        summary=_summary(PlanUpgraded),
        next="accept",
        correlated=False,
    ),
    _ours(m.InstanceResized, None, correlated=False),
    _ours(m.MigrationRequested, "prepare"),
    _ours(m.MigrationPrepared, "stop"),
    _ours(m.MigrationStopped, "back_up"),
    _ours(m.MigrationBackedUp, "provision"),
    _ours(m.MigrationProvisioned, "rewrite_conf"),
    _ours(m.MigrationConfRewritten, "restore"),
    _ours(m.MigrationRestored, "start"),
    _ours(m.MigrationStarted, "complete"),
    _ours(m.MigrationCompleted, None),
    _ours(m.MigrationRejected, None, correlated=False),
    _ours(m.MigrationFailed, "roll_back"),
    _ours(m.MigrationRolledBack, None),
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
