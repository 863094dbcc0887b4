"""Rows of the platform's tables, converted to `model` and back."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, Protocol

from pydantic import ValidationError

from rehome_consumer.errors import Incompatible, Refused
from rehome_consumer.model import LARGEST_CPU, Credentials, Instance, Secret, Server
from rehome_events.parts import Entitlements, Limits


class Row(Protocol):
    """A row by column name: asyncpg's, or a plain dict."""

    def __getitem__(self, name: str, /) -> Any:
        """The column's value."""
        ...


STATUSES: Final = frozenset(
    {
        "creating",
        "starting",
        "running",
        "stopping",
        "stopped",
        "restarting",
        "updating",
        "maintenance",
        "error",
        "terminated",
        "container_missing",
        "paused",
    }
)
"""The platform's values of `instances.status`; the column itself takes any."""


def as_instance(row: Row) -> Instance:
    """A row of `instances`. A limit that is not in the platform's own form counts as not set."""
    plain = {name: row[name] for name in _INSTANCE_COLUMNS}
    return Instance(**plain, status=row["status"] or "creating", limits=_limits(row))


def as_server(row: Row) -> Server:
    """A row of `db_servers`."""
    return Server(
        id=row["id"],
        name=row["name"],
        host=row["host"],
        port=row["port"],
        kind=row["server_type"],
        status=row["status"],
        admin=Credentials(row["admin_user"], Secret(row["admin_password"])),
        health=row["health_status"] or "unknown",
        postgres_version=row["postgres_version"],
        dedicated_to_instance_id=row["dedicated_to_instance_id"],
    )


def as_entitlements(row: Row, plan: str) -> Entitlements:
    """A row of `plan_entitlements`.

    Raises:
        Incompatible: it grants something that is no limit; nothing is guessed, since it would be applied.
    """
    try:
        return Entitlements.model_validate(
            {name: row[name] for name in ("cpu_limit", "memory_limit", "storage_limit", "db_type")}
        )
    except ValidationError as error:
        wrong = ", ".join(f"{problem['loc'][0]} ({problem['msg']})" for problem in error.errors())
        raise Incompatible(f"plan_entitlements of plan {plan!r} cannot be used: {wrong}") from None


def limit_columns(limits: Limits) -> dict[str, Any]:
    """The columns of `instances` for those limits that are set.

    Raises:
        Incompatible: more cores than the column can hold.
    """
    columns = {name: value for name, value in limits.model_dump().items() if name in Limits.model_fields}
    if limits.cpu_limit is not None:
        # Rounded here as PostgreSQL would, so that a second write finds nothing to change.
        cores = Decimal(str(limits.cpu_limit)).quantize(Decimal("0.1"), ROUND_HALF_UP)
        if cores > LARGEST_CPU:
            raise Incompatible(f"instances.cpu_limit holds at most {LARGEST_CPU} cores, not {cores}")
        columns["cpu_limit"] = float(cores)
    return {name: value for name, value in columns.items() if value is not None}


def known_status(status: str) -> str:
    """The status, if it is one of the platform's.

    Raises:
        Refused: it is not; the platform's other parts would not know what to do with the instance.
    """
    if status not in STATUSES:
        raise Refused(
            f"{status!r} is no status of an instance; it must be one of {', '.join(sorted(STATUSES))}"
        )
    return status


def _limits(row: Row) -> Limits:
    limits: dict[str, Any] = {}
    for name in Limits.model_fields:
        try:
            limits |= Limits.model_validate({name: row[name]}).model_dump(include={name})
        except ValidationError:
            continue
    return Limits(**limits)


_INSTANCE_COLUMNS = tuple(name for name in Instance.__dataclass_fields__ if name not in {"status", "limits"})
