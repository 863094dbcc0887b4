"""What a migration remembers: each fact's name in the journal, its type, and whether it is a secret.

A fact belongs to one attempt. It is written once: the first value counts. A step that remembers the replicas,
stops the service and dies is given the same replicas when it runs again. What may be done several times has a fact for
each (`Fact.again`).
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - in the type of a fact
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from uuid import UUID

import orjson

from rehome_consumer.model import Compared, ConfChange, Fence, Grant, Secret, Signatures, Strategy
from rehome_events.parts import Limits, Rehearsal, Verified

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """One thing that an attempt remembers.

    Attributes:
        name: its name in the journal. A secret is encrypted for its name, so a secret's name never changes.
        encode: the value as JSON; a secret's as text.
        decode: the value again.
        secret: encrypted in the journal, and shown to nobody.
    """

    name: str
    encode: Callable[[T], Any]
    decode: Callable[[Any], T]
    secret: bool = False

    def again(self, number: int) -> Fact[T]:
        """What is remembered when it was done for this time; the first has no number."""
        return self if number == 1 else replace(self, name=f"{self.name}_{number}")


def _fence(stored: Mapping[str, Any]) -> Fence:
    """A fence from its JSON; what an earlier release did not record is left out."""
    grants = stored.get("grants")
    return Fence(
        **{
            **stored,
            "grants": None if grants is None else tuple(Grant(**one) for one in grants),
            "inside": tuple(stored.get("inside", ())),
        }
    )


def _limits(limits: Limits) -> dict[str, Any]:
    return limits.model_dump(mode="json")


def _verified(verified: Verified) -> dict[str, Any]:
    return verified.model_dump(mode="json")


def _rehearsal(rehearsal: Rehearsal) -> dict[str, Any]:
    return rehearsal.model_dump(mode="json")


def _changes(changes: tuple[ConfChange, ...]) -> list[dict[str, Any]]:
    return [asdict(one) for one in changes]


def _changes_of(stored: list[dict[str, Any]]) -> tuple[ConfChange, ...]:
    return tuple(ConfChange(**one) for one in stored)


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(value).decode()


# accept: what the upgrade grants, and where the data is
SOURCE: Final[Fact[UUID]] = Fact("source", str, UUID)
LIMITS: Final[Fact[Limits]] = Fact("limits", _limits, Limits.model_validate)
PLAN_TIER: Final[Fact[str]] = Fact("plan_tier", str, str)
NOT_BEFORE: Final[Fact[datetime]] = Fact("not_before", datetime.isoformat, datetime.fromisoformat)
"""Before which the upgrade wants the instance not to be stopped."""
LIMITS_BEFORE_RESIZE: Final[Fact[Limits]] = Fact("limits_before_resize", _limits, Limits.model_validate)
TASKS_BEFORE_RESIZE: Final[Fact[tuple[str, ...]]] = Fact("tasks_before_resize", list, tuple)

# prepare: the dedicated server, and both logins of the tenant
TARGET: Final[Fact[UUID]] = Fact("target", str, UUID)
TENANT_USER: Final[Fact[str]] = Fact("tenant_user", str, str)
TENANT_PASSWORD: Final[Fact[Secret]] = Fact("tenant_password", Secret.reveal, Secret, secret=True)
SERVER_REQUESTED: Final[Fact[bool]] = Fact("server_requested", bool, bool)
"""database-service was, or was about to be, asked for a server; whether it made one is not known yet."""
SERVER_PROVISIONED: Final[Fact[bool]] = Fact("server_provisioned", bool, bool)
NEW_USER: Final[Fact[str]] = Fact("new_user", str, str)
NEW_PASSWORD: Final[Fact[Secret]] = Fact("new_password", Secret.reveal, Secret, secret=True)
"""The login on the dedicated server, where database-service names one; else it is the tenant's of today."""
SERVER_RETURN_REQUESTED: Final[Fact[bool]] = Fact("server_return_requested", bool, bool)
REHEARSED_DEFINITIONS: Final[Fact[str]] = Fact("rehearsed_definitions", str, str)
"""Digest of the definitions that were rehearsed; of each rehearsal one, the last counts."""
REHEARSAL: Final[Fact[Rehearsal]] = Fact("rehearsal", _rehearsal, Rehearsal.model_validate)
"""How the rehearsal went: the forecast of the copy."""
MAY_FOLLOW: Final[Fact[bool]] = Fact("may_follow", bool, bool)
"""Whether its copy may follow its source, as it was when it first waited for its turn to rehearse."""
STRATEGY: Final[Fact[Strategy]] = Fact("strategy", asdict, lambda stored: Strategy(**stored))
"""How the data is copied, as `prepare` has decided it."""
SIGNATURES: Final[Fact[Signatures]] = Fact("signatures", asdict, lambda stored: Signatures(**stored))
"""Of both databases' catalogs, as the copy that was to follow was compared; of each copy one, the last counts."""
WARM_GIVEN_UP: Final[Fact[str]] = Fact("warm_given_up", str, str)
"""Why the copy follows its source no more: the move goes on cold."""
FOLLOWS_SINCE: Final[Fact[datetime]] = Fact("follows_since", datetime.isoformat, datetime.fromisoformat)
"""Since when a copy follows its source."""
LENT_LEFT: Final[Fact[str]] = Fact("lent_left", str, str)
"""Which table of the fenced source could not get its own replica identity back: the doctor tries again."""
CAUGHT_UP: Final[Fact[bool]] = Fact("caught_up", bool, bool)
"""The copy has everything that the fenced source has: it need not follow any more."""

BEGUN_AT: Final[Fact[datetime]] = Fact("begun_at", datetime.isoformat, datetime.fromisoformat)
"""When it had its slot to rehearse: from then on a pause lets the rehearsal end."""

LET_GO_AT: Final[Fact[datetime]] = Fact("let_go_at", datetime.isoformat, datetime.fromisoformat)
"""When an operator let the move go on outside of the maintenance window."""

# stop: everything that a rollback restores
REPLICAS: Final[Fact[int]] = Fact("replicas", int, int)
SPEC: Final[Fact[Mapping[str, Any]]] = Fact("spec", _json, orjson.loads, secret=True)
"""The service's definition; secret, since its environment holds a password."""
PLATFORM_RECORD: Final[Fact[dict[str, Any]]] = Fact("platform_record", dict, dict)
FENCE: Final[Fact[Fence]] = Fact("fence", asdict, _fence)
"""Database and role as they were before the fence."""
STOPPED_AT: Final[Fact[datetime]] = Fact("stopped_at", datetime.isoformat, datetime.fromisoformat)
RESTARTED_AT: Final[Fact[datetime]] = Fact("restarted_at", datetime.isoformat, datetime.fromisoformat)
"""When a rollback had the instance serve from the source again."""

# back_up, rewrite_conf, restore
BACKUP_BYTES: Final[Fact[int]] = Fact("backup_bytes", int, int)
BACKUP_MANIFEST_SHA256: Final[Fact[str]] = Fact("backup_manifest_sha256", str, str)
CONF_CHANGES: Final[Fact[tuple[ConfChange, ...]]] = Fact("conf_changes", _changes, _changes_of)
"""What of odoo.conf is rewritten, before and after, passwords masked."""
COMPARED: Final[Fact[Compared]] = Fact("compared", asdict, lambda stored: Compared(**stored))
"""How much a warm move has compared after the stop."""
VERIFIED: Final[Fact[Verified]] = Fact("verified", _verified, Verified.model_validate)
ACCESS_OPENED: Final[Fact[bool]] = Fact("access_opened", bool, bool)
"""The tenant's role may log in on the dedicated server, or was about to be allowed to."""
ACCESS_REVOKED: Final[Fact[bool]] = Fact("access_revoked", bool, bool)
"""A rollback has closed that role again, and has found nothing written: it stays closed."""

# start, complete, retire
HEALTHY_AT: Final[Fact[datetime]] = Fact("healthy_at", datetime.isoformat, datetime.fromisoformat)
CONNECTIONS_CHECKED: Final[Fact[bool]] = Fact("connections_checked", bool, bool)
SOURCE_RETAINED_UNTIL: Final[Fact[datetime]] = Fact(
    "source_retained_until", datetime.isoformat, datetime.fromisoformat
)
SOURCE_RETIRED_AT: Final[Fact[datetime]] = Fact(
    "source_retired_at", datetime.isoformat, datetime.fromisoformat
)


@dataclass(frozen=True, slots=True)
class RecordedFacts:
    """The facts of one attempt as the journal shows them to operators; of a secret only that it is there.

    Attributes:
        values: name -> JSON; None for a secret.
    """

    values: Mapping[str, Any] = field(default_factory=dict)

    def get(self, fact: Fact[T]) -> T | None:
        """Its value; None when it was not recorded, or is a secret."""
        value = self.values.get(fact.name)
        return None if value is None else fact.decode(value)

    def __contains__(self, fact: Fact[Any]) -> bool:
        return fact.name in self.values
