"""The reconciler inside the consumer: checks every few minutes, reports in log and metrics, repairs nothing."""

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
LONGEST: Final = 900.0  # seconds that one check may take
LEVELS: Final = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}


class PeriodicDiagnosis:
    """Checks in the background; what it found last is in `counts` and `dead_letters`."""

    def __init__(self, observer: Observer, *, every: timedelta, stuck_after: timedelta) -> None:
        """Take the observer, how often to check, and after how long without a change a migration counts as stuck."""
        self._observer = observer
        self._every = every.total_seconds()
        self._stuck_after = stuck_after
        self._reported: dict[tuple[str, str, str], tuple[datetime, Finding]] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        """(kind, severity) -> how many there are."""
        self.slots: dict[str, tuple[int, int]] = {}
        """Server -> the most bytes of WAL that it keeps for a copy that follows, and the most that one is behind."""
        self.checked_at: datetime | None = None
        """When the last check was made; None before the first."""
        self.dead_letters: int | None = None
        """How many are in the queue; None while that is not known."""

    async def run(self) -> None:
        """Check again and again, for ever. Nothing that goes wrong in here ends the consumer."""
        while True:
            await asyncio.sleep(self._every)
            try:
                async with asyncio.timeout(LONGEST):
                    await self.check()
            except (RehomeError, TimeoutError) as error:
                log.warning("doctor.check_failed error=%s", error or f"not done within {LONGEST:g} s")
            except Exception:
                log.exception("doctor.defect")

    async def check(self) -> None:
        """One check: report what is new, what is still there after an hour, and what is resolved."""
        snapshot = await self._observer.everything()
        findings = {one.key: one for one in diagnose(snapshot, stuck_after=self._stuck_after)}
        for key, finding in findings.items():
            before = self._reported.get(key)
            if before is None or (snapshot.now - before[0]).total_seconds() > AGAIN_AFTER:
                self._reported[key] = (snapshot.now, finding)
                _log("doctor.finding", finding, LEVELS[finding.severity])
        for key in self._reported.keys() - findings.keys():
            _log("doctor.cleared", self._reported.pop(key)[1], logging.INFO)
        self.counts = Counter((one.kind, one.severity) for one in findings.values())
        self.slots = {
            one.server.name: (
                max(slot.retained for slot in one.inventory.slots),
                max(slot.behind or 0 for slot in one.inventory.slots),
            )
            for one in snapshot.servers
            if one.inventory and one.inventory.slots
        }
        queue = (snapshot.queues or {}).get(DEAD)
        self.dead_letters = queue.ready if queue else None
        self.checked_at = snapshot.now
        log.debug("doctor.checked findings=%d", len(findings))


def _log(word: str, finding: Finding, level: int) -> None:
    log.log(
        level,
        "%s kind=%s severity=%s where=%r since=%s why=%s",
        word, finding.kind, finding.severity, finding.where,
        finding.since.isoformat(timespec="seconds") if finding.since else "?", finding.what,
    )  # fmt: skip
