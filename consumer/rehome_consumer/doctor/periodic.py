"""The reconciler inside the consumer: looks every few minutes, tells in log and metrics, repairs nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from rehome_consumer.doctor.diagnosis import diagnose
from rehome_consumer.errors import RehomeError
from rehome_consumer.rabbitmq.topology import DEAD

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from rehome_consumer.doctor.finding import Finding
    from rehome_consumer.doctor.observer import Observer

log = logging.getLogger(__name__)

AGAIN_AFTER: Final = 3600.0  # seconds after which a finding that is still there is logged again
LONGEST: Final = 900.0  # seconds that one look may take
LEVELS: Final = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}


class PeriodicDiagnosis:
    """Looks in the background; what it found last is in `counts` and `dead_letters`."""

    def __init__(self, observer: Observer, *, every: timedelta, stuck_after: timedelta) -> None:
        """Take what to look through, how often, and after how much quiet a migration counts as stuck."""
        self._observer = observer
        self._every = every.total_seconds()
        self._stuck_after = stuck_after
        self._told: dict[tuple[str, str, str], tuple[datetime, Finding]] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        """(kind, severity) -> how many there are."""
        self.looked_at: datetime | None = None
        """When the last look ended; None before the first."""
        self.dead_letters: int | None = None
        """How many wait; None while nobody knows."""

    async def run(self) -> None:
        """Look again and again, for ever. Nothing that goes wrong in here ends the consumer."""
        while True:
            await asyncio.sleep(self._every)
            try:
                async with asyncio.timeout(LONGEST):
                    await self.look()
            except (RehomeError, TimeoutError) as error:
                log.warning("doctor.blind error=%s", error or f"not done within {LONGEST:g} s")
            except Exception:
                log.exception("doctor.defect")

    async def look(self) -> None:
        """One look: tell what is new, what is still there after an hour, and what is gone."""
        snapshot = await self._observer.everything()
        findings = {one.key: one for one in diagnose(snapshot, stuck_after=self._stuck_after)}
        for key, finding in findings.items():
            before = self._told.get(key)
            if before is None or (snapshot.now - before[0]).total_seconds() > AGAIN_AFTER:
                self._told[key] = (snapshot.now, finding)
                _tell("doctor.finding", finding, LEVELS[finding.severity])
        for key in self._told.keys() - findings.keys():
            _tell("doctor.cleared", self._told.pop(key)[1], logging.INFO)
        self.counts = Counter((one.kind, one.severity) for one in findings.values())
        look = (snapshot.queues or {}).get(DEAD)
        self.dead_letters = look.ready if look else None
        self.looked_at = snapshot.now
        log.debug("doctor.looked findings=%d", len(findings))


def _tell(word: str, finding: Finding, level: int) -> None:
    log.log(
        level,
        "%s kind=%s severity=%s where=%r since=%s why=%s",
        word, finding.kind, finding.severity, finding.where,
        finding.since.isoformat(timespec="seconds") if finding.since else "?", finding.what,
    )  # fmt: skip
