"""Every metric that the programs export, its labels and their values, read from what they answer to Prometheus."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from prometheus_client.parser import text_string_to_metric_families

from rehome_consumer import saga
from rehome_consumer.console import metrics
from rehome_consumer.doctor.finding import Kind, Severity
from rehome_consumer.doctor.periodic import PeriodicDiagnosis
from rehome_consumer.operators.documents import Overview
from rehome_consumer.ports.engine import UNMOVED
from rehome_consumer.process.health import Status, _State
from rehome_consumer.sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping

STEPS: Final = [step.name for step in saga.MIGRATION]
STATES: Final = {"open", "failing", "failed", *saga.STATES.values(), *UNMOVED}
OUTCOMES: Final = re.findall(r"THEN '(\w+)' ELSE '(\w+)' END AS outcome", load("console")["downtimes"])[0]
ROWS: Final[dict[str, list[dict[str, Any]]]] = {
    "step_seconds": [{"step": step, "bucket": 1, "number": 1, "seconds": 1.0} for step in STEPS],
    "downtimes": [{"outcome": one, "bucket": 1, "number": 1, "seconds": 1.0} for one in OUTCOMES],
    "moves": [
        {"outcome": outcome, "strategy": strategy, "number": 1, "bytes": 1.0}
        for outcome in ("completed", "rolled_back")
        for strategy in ("cold", "warm")
    ],
    "tries": [{"step": step, "failed": 1, "waiting": 1} for step in STEPS],
}


class _Everything:
    """Stands for the console's reader, its journal and its broker: a row of each kind."""

    async def overview(self) -> Overview:
        return Overview(
            running=[],
            waiting=[],
            paused=None,
            states=dict.fromkeys(STATES, 1),
            dead_letters=0,
            unsent_events=0,
        )

    async def fetch(self, query: str, *_: object) -> list[dict[str, Any]]:
        return ROWS[query]

    async def oldest_unsent(self) -> float:
        return 0.0

    async def dead_letters(self) -> int:
        return 0


async def of_the_console() -> str:
    """What a console answers that has something of each kind."""
    stand_in = cast("Any", _Everything())

    async def totals() -> Any:
        return await metrics.totals(stand_in)

    return (await metrics.measured(stand_in, stand_in, stand_in, cast("Any", totals))).decode()


async def of_a_consumer() -> str:
    """What a consumer answers whose doctor has found something of each kind."""
    diagnosis = PeriodicDiagnosis(cast("Any", None), every=timedelta(1), stuck_after=timedelta(1))
    diagnosis.counts = Counter((kind, one) for kind in get_args(Kind) for one in get_args(Severity))
    diagnosis.slots = {"postgres-pool-1": (2, 1)}
    diagnosis.checked_at = datetime.now(UTC)
    return (await _State(Status(diagnosis=diagnosis))._measured()).decode()


async def exported() -> Mapping[str, Mapping[str, frozenset[str]]]:
    """Each sample's name, its labels, and the values that these can have."""
    found: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for text in (await of_the_console(), await of_a_consumer()):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = found[sample.name]
                for label, value in sample.labels.items():
                    labels[label].add(value)
    return {
        name: {label: frozenset(values) for label, values in labels.items()} for name, labels in found.items()
    }
