"""What Prometheus gets: read from the journal, so that it covers every consumer and survives every restart.

What a consumer measures of itself is at its own `/metrics` (`process/health.py`). Two of those have the same name and
meaning here, and come from the same place: `rehome_outbox_oldest_unsent_seconds` and `rehome_dead_letters`.
"""

from __future__ import annotations

from math import inf, nan
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from rehome_consumer.adapters.state.journal import PostgresJournal
    from rehome_consumer.console.broker import BrokerLink
    from rehome_consumer.network.http_server import Shared
    from rehome_consumer.operators.reader import Reader

STEP_BOUNDS: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
DOWNTIME_BOUNDS: Final = (2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0)
"""Upper bounds in seconds."""
TOTALS_FRESH: Final = 60.0
"""Seconds for which totals are valid: they are read from every row."""


async def measured(
    reader: Reader, journal: PostgresJournal, broker: BrokerLink, totals: Shared[list[Metric]]
) -> bytes:
    """The metrics in Prometheus' text form.

    Raises:
        RehomeError: the state database does not answer: a scrape that fails is seen, a wrong number is not.
    """
    overview = await reader.overview()
    every = [
        _gauge("rehome_migrations", "Migrations by state.", "state", overview.states.items()),
        _one("rehome_migrations_running", "Migrations that are not over.", len(overview.running)),
        _one(
            "rehome_migrations_need_operator",
            "Open migrations, and upgrades that wait, which an operator has to look at.",
            sum(one.attention is not None for one in [*overview.running, *overview.waiting]),
        ),
        _one(
            "rehome_instances_down",
            "Instances that a migration has stopped.",
            sum(one.down for one in overview.running),
        ),
        _one(
            "rehome_paused", "Whether operators have paused all moves: 1 or 0.", overview.paused is not None
        ),
        _one("rehome_upgrades_waiting", "Upgrades that wait for another migration.", len(overview.waiting)),
        _one(
            "rehome_migrations_in_line",
            "Migrations that wait in line for slots.",
            sum(one.place_in_line is not None for one in overview.running),
        ),
        _one(
            "rehome_claims",
            "Instances that a consumer works on now.",
            sum(one.worked_on_from is not None for one in overview.running),
        ),
        _one("rehome_outbox_unsent", "Events that wait to be sent.", overview.unsent_events),
        _one(
            "rehome_outbox_oldest_unsent_seconds",
            "Age of the oldest unsent event.",
            await journal.oldest_unsent(),
        ),
        _one("rehome_dead_letters", "Dead letters that wait for an operator.", await _dead(broker)),
        *(await totals()),
    ]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(every))
    return generate_latest(registry)


async def totals(reader: Reader) -> list[Metric]:
    """What is counted over all migrations that there ever were; asked for once a minute at most."""
    return [
        _histogram(
            "rehome_step_seconds",
            "Steps that are done, from their first start to their end.",
            "step",
            STEP_BOUNDS,
            await reader.fetch("step_seconds", STEP_BOUNDS),
        ),
        _histogram(
            "rehome_downtime_seconds",
            "How long instances were down, by how that ended: moved or rolled_back.",
            "outcome",
            DOWNTIME_BOUNDS,
            await reader.fetch("downtimes", DOWNTIME_BOUNDS),
        ),
        *_tries(await reader.fetch("tries")),
        *_moves(await reader.fetch("moves")),
    ]


class _Given:
    """A collector of metrics that are there already."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


async def _dead(broker: BrokerLink) -> float:
    number = await broker.dead_letters()
    return nan if number is None else number


def _one(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=value)


def _gauge(name: str, what: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    metric = GaugeMetricFamily(name, what, labels=[label])
    for key, value in values:
        metric.add_metric([key], value)
    return metric


def _tries(rows: Sequence[Mapping[str, Any]]) -> tuple[Metric, Metric]:
    failed = CounterMetricFamily("rehome_step_failed_tries", "Tries of steps that failed.", labels=["step"])
    waiting = GaugeMetricFamily(
        "rehome_retries_waiting", "Steps that wait for their next try.", labels=["step"]
    )
    for row in rows:
        failed.add_metric([row["step"]], row["failed"])
        waiting.add_metric([row["step"]], row["waiting"])
    return failed, waiting


def _moves(rows: Sequence[Mapping[str, Any]]) -> tuple[Metric, Metric]:
    moves = CounterMetricFamily(
        "rehome_moves", "Moves that are over, by outcome and strategy.", labels=["outcome", "strategy"]
    )
    moved = CounterMetricFamily(
        "rehome_moved_bytes", "Bytes of databases that were moved, as rehearsed.", labels=["strategy"]
    )
    for row in rows:
        moves.add_metric([row["outcome"], row["strategy"]], row["number"])
        if row["outcome"] == "completed":
            moved.add_metric([row["strategy"]], row["bytes"])
    return moves, moved


def _histogram(
    name: str, what: str, label: str, bounds: Sequence[float], rows: Sequence[Mapping[str, Any]]
) -> Metric:
    """Args: rows of (label, number of bounds that are not above it, how many, their sum)."""
    metric = HistogramMetricFamily(name, what, labels=[label])
    for key in dict.fromkeys(row[label] for row in rows):
        own = [row for row in rows if row[label] == key]
        below = [
            sum(row["number"] for row in own if row["bucket"] <= place) for place in range(len(bounds) + 1)
        ]
        buckets = [(str(bound), number) for bound, number in zip((*bounds, inf), below, strict=True)]
        buckets[-1] = ("+Inf", below[-1])
        metric.add_metric([key], buckets, sum(row["seconds"] for row in own))
    return metric
