"""The broker goes away, freezes, or refuses in the middle of a move: it completes all the same."""

import asyncio

import pytest

from tests.chaos.moving import Move, hold

LONG_ENOUGH = 17.0
"""Seconds: longer than the consumer waits for a confirm."""


@pytest.mark.parametrize(
    "where",
    [pytest.param("stop.ran", marks=pytest.mark.representative), "restore.copier.restore.before"],
)
async def test_a_broker_that_is_restarted_delays_a_move_and_nothing_else(where: str, move: Move) -> None:
    await move.begin(order=hold(where))
    await move.there()
    await move.arena.local.broker.stop()
    move.go_on()
    await move.arena.local.broker.start()
    await move.ends("migration.completed")


@pytest.mark.parametrize(
    "where",
    ["accept.ran", "stop.ran", pytest.param("start.ran", marks=pytest.mark.representative)],
)
async def test_a_broker_that_is_killed_before_an_event_is_published_delays_it(where: str, move: Move) -> None:
    await move.begin(order=hold(where))
    await move.there()
    await move.arena.local.broker.kill()
    move.go_on()
    await move.arena.local.broker.start()
    await move.ends("migration.completed")


@pytest.mark.parametrize("where", ["publish.migration.stopped.before", "restore.started"])
async def test_a_broker_that_is_frozen_for_longer_than_a_confirm_may_take_delays_a_move(
    where: str, move: Move
) -> None:
    await move.begin(order=hold(where))
    await move.there()
    broker = move.arena.local.broker
    broker.freeze()
    try:
        move.go_on()
        await asyncio.sleep(LONG_ENOUGH)  # the fault itself, not a wait for something
    finally:
        broker.thaw()
    await move.ends("migration.completed")


async def test_publishers_that_are_blocked_by_a_memory_alarm_go_on_when_it_is_over(move: Move) -> None:
    await move.begin(order=hold("back_up.ran"))
    await move.there()
    broker = move.arena.local.broker
    await broker.rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1")
    try:
        move.go_on()
        await asyncio.sleep(LONG_ENOUGH)  # the fault itself, not a wait for something
    finally:
        await broker.rabbitmqctl("set_vm_memory_high_watermark", "0.4")
    await move.ends("migration.completed")
