"""What is logged in a step is kept for its migration: masked, bounded, and in no step's way."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import orjson
import pytest

from rehome_consumer.context import log_fields
from rehome_consumer.errors import Unreachable
from rehome_consumer.process import log_lines, logs
from rehome_consumer.process.log_lines import LogLines
from tests.support.virtual_time import on_virtual_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rehome_consumer.ports.log_lines import LogLine

MIGRATION = uuid4()
log = logging.getLogger("rehome_consumer.steps.example")


class Store:
    """Keeps lines in a list, or does not answer."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.answers = True
        self.purged = 0

    async def keep(self, lines: Sequence[LogLine]) -> None:
        if not self.answers:
            raise Unreachable("state database")
        self.lines.extend(lines)

    async def purge(self) -> None:
        self.purged += 1


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def kept(store: Store) -> Iterator[LogLines]:
    handler = LogLines(store)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    outside = log_fields.set({"migration": str(MIGRATION), "step": "stop", "try": 2})
    yield handler
    log_fields.reset(outside)
    log.removeHandler(handler)


async def test_a_line_has_its_fields_and_those_of_its_step(kept: LogLines, store: Store) -> None:
    log.info("step.finished step=stop seconds=%.1f", 1.5)
    await kept.write()
    (line,) = store.lines
    assert line.migration_id == MIGRATION
    fields = orjson.loads(line.text)
    assert (fields["event"], fields["seconds"], fields["try"]) == ("step.finished", "1.5", 2)
    await kept.write()
    assert len(store.lines) == 1


async def test_a_line_is_made_once_for_standard_error_and_the_journal(
    kept: LogLines, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def masked(text: str) -> str:
        made.append(text)
        return text

    monkeypatch.setattr(logs, "masked", masked)
    other = logging.StreamHandler(sys.stderr)
    other.setFormatter(logs.formatter("json"))
    log.addHandler(other)
    log.info("step.finished step=stop")
    log.removeHandler(other)
    await kept.write()
    assert capsys.readouterr().err.strip() == store.lines[0].text
    assert made.count("step.finished") == 1


async def test_what_is_logged_outside_of_a_step_is_not_kept(kept: LogLines, store: Store) -> None:
    outside = log_fields.set({})
    log.info("relay.started")
    log_fields.reset(outside)
    await kept.write()
    assert store.lines == []


async def test_secrets_are_masked_in_what_is_kept(kept: LogLines, store: Store) -> None:
    try:
        raise ValueError("postgresql://odoo:hunter2hunter2@pool/acme")  # noqa: TRY301
    except ValueError:
        log.exception("step.failed error=postgresql://odoo:hunter2hunter2@pool/acme")
    await kept.write()
    (line,) = store.lines
    assert "hunter2" not in line.text
    assert "ValueError" in line.text


async def test_a_line_without_end_is_cut_and_says_so(kept: LogLines, store: Store) -> None:
    log.info("step.odd why=%s", "x" * 1_000_000)
    log.info("postgresql://odoo:hunter2hunter2@pool/acme%s", "y" * 10_000)
    await kept.write()
    fields = orjson.loads(store.lines[0].text)
    assert (fields["event"], fields["step"], fields["try"]) == ("step.odd", "stop", 2)
    assert fields["cut"] > 1_000_000
    assert len(store.lines[0].text) < 200
    assert "hunter2" not in store.lines[1].text


async def test_who_looks_each_minute_says_once_for_what_it_waits(kept: LogLines, store: Store) -> None:
    for why in ("a window", "a window", "a window", "a slot", "a slot", "a window"):
        log.info("step.started step=stop")
        log.info("step.interrupted step=stop why=%s", why)
    log.info("step.started step=stop")
    await kept.write()
    log.info("step.finished step=stop")
    await kept.write()
    told = [orjson.loads(line.text) for line in store.lines]
    assert [line.get("why", line["event"]) for line in told] == [
        *("step.started", "a window", "step.started", "a slot", "step.started", "a window"),
        *("step.started", "step.finished"),
    ]


async def test_a_step_that_works_for_long_is_seen_to_have_begun(
    kept: LogLines, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.info("step.started step=stop")
    await kept.write()
    assert store.lines == []
    monkeypatch.setattr(log_lines, "A_LOOK", timedelta())
    await kept.write()
    assert [orjson.loads(line.text)["event"] for line in store.lines] == ["step.started"]


async def test_an_end_in_the_middle_of_a_write_writes_nothing_twice(
    kept: LogLines, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on, keep = asyncio.Event(), asyncio.Event(), store.keep

    async def slowly(lines: Sequence[LogLine]) -> None:
        await keep(lines)
        begun.set()
        await goes_on.wait()  # for the server's answer

    monkeypatch.setattr(store, "keep", slowly)
    log.info("step.finished step=stop")
    running = asyncio.create_task(kept.run())
    await begun.wait()
    log.info("step.interrupted step=stop why=none")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    goes_on.set()
    await kept.end()
    assert [orjson.loads(line.text)["event"] for line in store.lines] == ["step.finished", "step.interrupted"]


async def test_an_end_just_after_a_write_writes_nothing_twice(
    kept: LogLines, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = store.keep

    async def and_end(lines: Sequence[LogLine]) -> None:
        await keep(lines)
        asyncio.get_running_loop().call_soon(running.cancel)

    monkeypatch.setattr(store, "keep", and_end)
    log.info("step.finished step=stop")
    running = asyncio.create_task(kept.run())
    await asyncio.gather(running, return_exceptions=True)
    await kept.end()
    assert len(store.lines) == 1


async def test_what_somebody_else_failed_to_write_is_tried_again_at_the_end(
    kept: LogLines, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, keep = asyncio.Event(), store.keep

    async def cut_off(_: Sequence[LogLine]) -> None:
        monkeypatch.setattr(store, "keep", keep)
        begun.set()
        await asyncio.sleep(0)
        raise Unreachable("state database")

    monkeypatch.setattr(store, "keep", cut_off)
    log.info("step.finished step=stop")
    running = asyncio.create_task(kept.run())
    await begun.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await kept.end()
    assert len(store.lines) == 1


@on_virtual_time
async def test_where_no_lines_are_to_be_kept_those_from_before_are_removed(store: Store) -> None:
    handler = LogLines(store, keeps=False)
    log.addHandler(handler)
    outside = log_fields.set({"migration": str(MIGRATION)})
    running = asyncio.create_task(handler.run())
    log.info("step.finished step=stop")
    await asyncio.sleep(2 * log_lines.EVERY)
    running.cancel()
    log_fields.reset(outside)
    log.removeHandler(handler)
    assert (store.lines, store.purged) == ([], 1)


@pytest.mark.parametrize("error", [Unreachable("no"), ValueError("a defect")])
@on_virtual_time
async def test_a_store_with_a_defect_ends_no_consumer(
    kept: LogLines, store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(store, "keep", fail)
    monkeypatch.setattr(store, "purge", fail)
    log.info("step.finished step=stop")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(20 * log_lines.EVERY):
            await kept.run()


async def test_what_cannot_be_written_waits_and_the_oldest_give_way(
    kept: LogLines, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.answers = False
    for number in range(log_lines.MOST + 10):
        log.info("line.%d", number)
    await kept.write()
    await kept.write()
    assert caplog.text.count("log_lines.not_kept") == 1
    store.answers = True
    await kept.write()
    events = [orjson.loads(line.text)["event"] for line in store.lines]
    assert events == [f"line.{number}" for number in range(10, log_lines.MOST + 10)]


async def test_lines_that_come_while_others_are_written_are_neither_lost_nor_doubled(
    kept: LogLines, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "BATCH", 2)
    keep = store.keep

    async def slowly(lines: Sequence[LogLine]) -> None:
        await keep(lines)
        if len(store.lines) < 6:
            log.info("later.%d", len(store.lines))

    monkeypatch.setattr(store, "keep", slowly)
    for number in range(3):
        log.info("line.%d", number)
    await kept.write()
    events = [orjson.loads(line.text)["event"] for line in store.lines]
    assert events == ["line.0", "line.1", "line.2", "later.2", "later.4", "later.5"]
