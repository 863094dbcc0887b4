"""Every event of the contract, in one table; schemas, documents, bindings and checks are derived from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from rehome_events import migration as m
from rehome_events.billing import PlanUpgraded
from rehome_events.data import EventData
from rehome_events.errors import EventError, UnknownType, UnknownVersion

Model = type[EventData]

_LONGEST_NAME: Final = 80


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
        summary: Its meaning, in one sentence.
        next: The handler that it wakes; None when nothing follows.
        correlated: Whether it always belongs to a migration: ``migrationid`` and ``attempt`` are set.
        older: Makes the data of the version before, for as long as that one is published beside this one;
            None when it is not, or when there is none.
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
    older: Callable[[Any], EventData] | None = None


def _summary(model: Model) -> str:
    return (model.__doc__ or "").partition("\n")[0]


def _by_rehome(
    model: Model,
    handler: str | None,
    *,
    correlated: bool = True,
    older: Callable[[Any], EventData] | None = None,
) -> EventType:
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
        older=older,
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
    _by_rehome(m.InstanceResized, None, correlated=False),
    _by_rehome(m.MigrationRequested, "prepare"),
    _by_rehome(m.MigrationPrepared, "stop"),
    _by_rehome(m.MigrationStopped, "back_up"),
    _by_rehome(m.MigrationBackedUp, "provision"),
    _by_rehome(m.MigrationProvisioned, "rewrite_conf"),
    _by_rehome(m.MigrationConfRewritten, "restore"),
    _by_rehome(m.MigrationRestored, "start"),
    _by_rehome(m.MigrationStarted, "complete"),
    _by_rehome(m.MigrationCompleted, None),
    _by_rehome(m.MigrationRejected, None, correlated=False),
    _by_rehome(m.MigrationFailed, "roll_back"),
    _by_rehome(m.MigrationRolledBack, None),
)

_current: Final = {entry.type: entry for entry in _ALL}
_known: Final = {(entry.type, entry.version): entry for entry in _ALL}

CATALOG: Final[Mapping[str, EventType]] = MappingProxyType(_current)
"""The newest version of every type, in the order of a migration."""

KNOWN: Final[Mapping[tuple[str, int], EventType]] = MappingProxyType(_known)
"""Every version of every type that this release can read, also those that are no longer published."""


def lookup(type: str, version: int | None = None) -> EventType:  # noqa: A002 - the attribute's name in CloudEvents
    """The entry of a type.

    Args:
        type: Name of the type, such as ``migration.completed``.
        version: Number of its schema; None for the newest.

    Raises:
        UnknownType: This release knows no such type.
        UnknownVersion: It knows the type, but not in this version.
    """
    if type not in CATALOG:
        raise UnknownType(f"unknown event type {ascii(type)[:_LONGEST_NAME]}")
    if version is None:
        return CATALOG[type]
    try:
        return KNOWN[type, version]
    except KeyError:
        raise UnknownVersion(f"unknown version {version} of event type {type!r}") from None


def in_use(type: str) -> tuple[EventType, ...]:  # noqa: A002 - the attribute's name in CloudEvents
    """The versions of a type that may come, newest first: those that rehome publishes, or all of another publisher.

    Raises:
        UnknownType: This release knows no such type.
    """
    found = [lookup(type)]
    if found[0].published_by != "rehome":
        every = (entry for entry in KNOWN.values() if entry.type == type)
        return tuple(sorted(every, key=lambda entry: -entry.version))
    while found[-1].older is not None:
        found.append(KNOWN[type, found[-1].version - 1])
    return tuple(found)


def all_in_use() -> list[EventType]:
    """Every type in every version that may come, in the order of a migration."""
    return [entry for kind in CATALOG for entry in in_use(kind)]


def requested(wanted: str | Model) -> EventType:
    """The entry that a reader asks for, by a model or by a name.

    A name alone always means version 1: whoever wrote it wrote it for that version, and a release of this package
    that knows a newer one must not change what they get.

    Raises:
        UnknownType: There is no such type.
        EventError: It is not published in that version.
    """
    kind, version = (wanted, 1) if isinstance(wanted, str) else (wanted.TYPE, wanted.VERSION)
    offered = in_use(kind)
    for entry in offered:
        if entry.version == version:
            return entry
    models = ", ".join(entry.model.__name__ for entry in offered)
    raise EventError(f"{kind} v{version} is not published any more: name one of the models {models}")
