"""From a snapshot to findings. Pure; one line per group of checks."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rehome_consumer.doctor import instances, migrations, servers
from rehome_consumer.doctor.finding import NOT_CHECKED, Finding, most_severe_first

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.doctor.snapshot import Snapshot

STUCK_AFTER: Final = timedelta(minutes=5)
"""How long nothing may happen to a migration although something should; longer than any deferral's delay."""


def diagnose(
    snapshot: Snapshot, *, stuck_after: timedelta = STUCK_AFTER, only: UUID | None = None
) -> list[Finding]:
    """All findings, the most severe first; with `only` those about one instance."""
    found = [
        *migrations.findings(snapshot, stuck_after=stuck_after),
        *(finding for one in snapshot.instances for finding in instances.findings(one, snapshot.now)),
        *servers.findings(snapshot),
        *servers.not_ready(snapshot),
        *(
            Finding(
                "not_checked",
                "warning",
                trouble.what,
                f"it could not be checked: {trouble.error}",
                NOT_CHECKED,
            )
            for trouble in snapshot.troubles
        ),
    ]
    return most_severe_first([one for one in found if only is None or one.instance_id == only])
