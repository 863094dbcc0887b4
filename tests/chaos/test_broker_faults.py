"""The broker stops, freezes, or refuses in the middle of a move: the move completes."""

import asyncio

import pytest

from tests.chaos.moving import Move, hold

LONG_ENOUGH = 17.0
"""Seconds: longer than the consumer waits for a confirm."""


@pytest.mark.parametrize(
    "where",
    [pytest.param("stop.ran", marks=pytest.mark.representative), "restore.copier.restore.before"],
)
async def test_a_restarted_broker_only_delays_a_move(where: str, move: Move) -> None:
    await move.begin(order=hold(where))
    await move.until_reached()
    await move.arena.local.broker.stop()
    move.release()
    await move.arena.local.broker.start()
    await move.must_end("migration.completed")


@pytest.mark.parametrize(
    "where",
    ["accept.ran", "stop.ran", pytest.param("start.ran", marks=pytest.mark.representative)],
)
async def test_a_broker_killed_before_an_event_is_published_delays_the_event(where: str, move: Move) -> None:
    await move.begin(order=hold(where))
    await move.until_reached()
    await move.arena.local.broker.kill()
    move.release()
    await move.arena.local.broker.start()
    await move.must_end("migration.completed")


@pytest.mark.parametrize("where", ["publish.migration.stopped.before", "restore.started"])
async def test_a_broker_frozen_for_longer_than_a_confirm_may_take_delays_a_move(
    where: str, move: Move
) -> None:
    await move.begin(order=hold(where))
    await move.until_reached()
    broker = move.arena.local.broker
    broker.freeze()
    try:
        move.release()
        await asyncio.sleep(LONG_ENOUGH)  # the fault itself, not a wait for something
    finally:
        broker.thaw()
    await move.must_end("migration.completed")


async def test_publishers_blocked_by_a_memory_alarm_continue_when_it_is_over(move: Move) -> None:
    await move.begin(order=hold("back_up.ran"))
    await move.until_reached()
    broker = move.arena.local.broker
    await broker.rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1")
    try:
        move.release()
        await asyncio.sleep(LONG_ENOUGH)  # the fault itself, not a wait for something
    finally:
        await broker.rabbitmqctl("set_vm_memory_high_watermark", "0.4")
    await move.must_end("migration.completed")
