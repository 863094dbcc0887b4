"""One experiment: the consumer is disturbed at one boundary, once, and everything must hold at the end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rehome_consumer.process import freeze_watchdog
from sandbox.demo.chaos import Order
from sandbox.odoo.writers import Writers
from sandbox.system.net import wait_until
from sandbox.system.processes import ended
from tests.chaos.cases import END_SECONDS, SCENARIOS
from tests.chaos.invariants import Before, breaches, repeats
from tests.chaos.leftovers import client_programs
from tests.chaos.watch import Watch

if TYPE_CHECKING:
    from sandbox.platform.local import Site
    from tests.chaos.arena import Arena
    from tests.chaos.cases import Case, Scenario
    from tests.chaos.consumers import Consumer

SUBPROCESS_SECONDS = 15.0  # the reaper grants its program three, the step's cancellation ten
ORDERS = {"kill": "kill", "freeze": "freeze", "pause": "freeze", "stop": "freeze", "cut": "report"}
LIMITS = {**dict.fromkeys(ORDERS, END_SECONDS), "pause": END_SECONDS + 90}
"""Seconds until the end; a broker closes a silent consumer's connection after two heartbeats of 30 seconds."""
STANDSTILL = freeze_watchdog.LONGEST + freeze_watchdog.BEAT
FROZEN = ("freeze", "pause", "stop")
UNNOTICED = ("freeze", "pause")
"""The consumer runs without its watchdog: it would end at once when it noticed that it was frozen."""
WRITE_PAUSE = 0.05
CUT = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'rehome claim'
"""


@dataclass
class Result:
    """The result of one case.

    Attributes:
        outcome: the last event, or `not reached`.
        seconds: from the disturbance to the next event, or to rest if none was to come.
        repeats: copies of events that a subscriber got more than once.
        observations: how many times both servers were observed.
        breaches: what did not hold.
    """

    case: Case
    outcome: str
    seconds: float = 0.0
    repeats: int = 0
    observations: int = 0
    breaches: list[str] = field(default_factory=list)


async def play(arena: Arena, case: Case, site: Site) -> Result:
    """Disturb the consumer, wait for the end and for rest, and check that everything holds."""
    scenario = SCENARIOS[case.scenario]
    victim = await arena.ensure_consumer(site)
    logged = arena.log.stat().st_size
    before = await Before.of(arena, site)
    order = Order(ORDERS[case.action], case.boundary, case.nth, case.later)
    arena.orders.give(order, fail=scenario.fail)
    found: list[str] = []
    async with Watch(arena, site) as watch, Writers(site.url, pause=WRITE_PAUSE) as writers:
        await writers.wait_acknowledged(2)
        async with scenario.played(arena, site):
            if not await _obeyed(arena, scenario, site):
                return Result(case, "not reached")
            disturbed_at = time.monotonic()
            found += await _disturb(arena, case, site, victim)
            last = await arena.subscriber.wait_for(
                scenario.ends, instance_id=site.id, limit=LIMITS[case.action]
            )
            await arena.wait_until_quiet(but=victim)
        rested = time.monotonic()
        if case.action in FROZEN:
            found += await _wake(arena, case, victim, disturbed_at)
        await writers.wait_acknowledged(2)
    found += await breaches(
        arena,
        site,
        before,
        watch,
        writers,
        logged=logged,
        replayed=scenario.fixed and len(scenario.fail) == 1,
    )
    if case.action in FROZEN:
        await victim.child.kill()
    return Result(
        case,
        last.type,
        _next_event(arena, site, disturbed_at, rested) - disturbed_at,
        repeats(arena, site),
        watch.observations,
        found,
    )


async def _disturb(arena: Arena, case: Case, site: Site, victim: Consumer) -> list[str]:
    """Do what is left to do once the order was carried out, and start another consumer."""
    if case.action == "cut":
        return await _lose_claim(arena, site)
    if case.action == "kill":
        await asyncio.wait_for(victim.child.process.wait(), 10)
    elif case.action != "pause":
        await cut_off(arena)
    await arena.start_consumer()
    return []


async def cut_off(arena: Arena) -> None:
    """End the connections of the claims, and those of the consumers to the broker, like a network failure."""
    async with arena.platform() as platform:
        await platform.fetchval(CUT)
    broker = arena.local.broker
    connections = await broker.rabbitmqctl("list_connections", "pid", "client_properties")
    for line in connections.splitlines():
        pid, _, properties = line.partition("\t")
        if "rehome consumer" in properties:
            await broker.rabbitmqctl("close_connection", pid, "cut by an experiment")


async def _obeyed(arena: Arena, scenario: Scenario, site: Site) -> bool:
    """Wait until the order was carried out; False: the migration ended before that."""

    async def order_obeyed() -> bool:
        return arena.orders.obeyed

    async def obeyed() -> None:
        await wait_until(order_obeyed, what="the order to be carried out", limit=END_SECONDS, pause=0.005)

    async def over() -> None:
        await arena.subscriber.wait_for(scenario.ends, instance_id=site.id, limit=END_SECONDS)
        await arena.wait_until_quiet()

    tasks = [asyncio.ensure_future(obeyed()), asyncio.ensure_future(over())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if not arena.orders.obeyed:
        arena.orders.give(None)
        tasks[1].result()
        return False
    return True


async def _lose_claim(arena: Arena, site: Site) -> list[str]:
    """Cut the claim's connection; the programs that worked under it must end."""
    server = await arena.dedicated(site)
    ports = {str(arena.local.pool.port), str(server["port"]) if server else ""}
    programs = [pid for pid, _, port in client_programs() if port in ports]
    async with arena.platform() as platform:
        await platform.fetchval(CUT)

    async def all_ended() -> bool:
        return all(ended(pid) for pid in programs)

    try:
        await wait_until(all_ended, what="programs of the lost run to end", limit=SUBPROCESS_SECONDS)
    except TimeoutError as error:
        return [str(error)]
    return []


async def _wake(arena: Arena, case: Case, victim: Consumer, frozen_at: float) -> list[str]:
    """Let a frozen consumer continue, and wait until it is done with what it had in hand, or has ended."""
    if case.action in UNNOTICED:
        victim.child.thaw()
        await arena.wait_until_quiet()
        return []
    await asyncio.sleep(max(0.0, frozen_at + STANDSTILL - time.monotonic()))
    victim.child.thaw()
    try:
        await asyncio.wait_for(victim.child.process.wait(), 10)
    except TimeoutError:
        return ["a consumer continued after it had been frozen"]
    return []


def _next_event(arena: Arena, site: Site, disturbed_at: float, rested: float) -> float:
    """When the first event arrived that had not arrived before the disturbance."""
    about = [(at, event.id) for at, event in arena.arrivals if event.subject == str(site.id)]
    known = {event_id for at, event_id in about if at <= disturbed_at}
    return min((at for at, event_id in about if event_id not in known), default=rested)
