"""`rehome check --rehearse`: the rehearsal of a move that nobody asked for yet; it leaves nothing behind."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from rehome_consumer.context import current_migration
from rehome_consumer.engine.outcome import gravest
from rehome_consumer.errors import Incompatible, NotFound, RehomeError
from rehome_consumer.facts import NEW_PASSWORD, NEW_USER, SOURCE, TARGET
from rehome_consumer.model import RehearsalMark, Secret, rehearsal_role
from rehome_consumer.move import Move
from rehome_consumer.steps.support import rehearsal
from rehome_events.billing import PlanUpgraded
from rehome_events.envelope import new_event

if TYPE_CHECKING:
    from rehome_consumer.model import Instance, Server
    from rehome_consumer.ports.steps import Ports


async def rehearse(ports: Ports, instance: Instance, home: Server, target: Server) -> str:
    """Move the data once from `home` to a scratch database on `target`, compare, and remove everything again.

    Args:
        ports: their facts are stored nowhere.
        instance: serves meanwhile, and is not touched.
        home: where its data is.
        target: any server that is not its home.

    Returns:
        How long it took.

    Raises:
        RehomeError: what a move would meet.
    """
    if target.id == home.id:
        raise Incompatible(f"{target.name} is where the data is: name another server")
    migration = uuid4()
    current_migration.set(migration)
    facts = ports.facts
    await facts.remember(SOURCE, home.id)
    await facts.remember(TARGET, target.id)
    # A role of its own: the tenant's may be on that server, and in use.
    role = await facts.remember(NEW_USER, rehearsal_role(migration))
    await facts.remember(NEW_PASSWORD, Secret(secrets.token_urlsafe(24)))
    policy = replace(
        ports.policy,
        rehearse="full" if ports.policy.rehearse == "off" else ports.policy.rehearse,
        rehearsal_restore_jobs=await _restore_jobs(ports, instance, target),
        strategy="cold",  # nothing may follow afterwards
    )
    move = _move(replace(ports, policy=policy), instance, migration)
    made = (role, *await _missing_roles(ports, instance, home, target))
    mark = RehearsalMark(migration, ports.clock.now(), await move.scratch_name(), made)
    await ports.databases.mark_rehearsal(target, mark)
    try:
        done = await rehearsal.run(move)
    except ExceptionGroup as error:
        grave = gravest(error)
        raise (grave if isinstance(grave, RehomeError) else error) from None
    finally:
        for name in made:
            with suppress(RehomeError):  # what the rehearsal found counts
                await ports.databases.drop_role(target, name, counted_on=name != role)
        with suppress(RehomeError):
            await _unmark(ports, target, move, made)
    if done is None:
        return "nothing was rehearsed"
    seconds = done.dump_seconds + done.restore_seconds + done.compare_seconds
    what = "everything" if done.mode == "full" else "all definitions, no rows,"
    return (
        f"{what} was copied to {target.name} and compared in {seconds:.1f} s (dump {done.dump_seconds:.1f}, restore "
        f"{done.restore_seconds:.1f}, comparison {done.compare_seconds:.1f}), and removed again"
        + ("" if done.mode == "full" else f". But {rehearsal.NO_ROWS}")
    )


async def _restore_jobs(ports: Ports, instance: Instance, target: Server) -> int | None:
    """How many sessions restore: beside others on the server no more than read the pool."""
    own = await ports.platform.dedicated_server(instance.id)
    alone = own is not None and own.id == target.id
    return ports.policy.rehearsal_restore_jobs or (None if alone else ports.policy.rehearsal_jobs)


async def _unmark(ports: Ports, target: Server, move: Move, made: tuple[str, ...]) -> None:
    """Remove the mark, unless something is left that it names: then the doctor needs it."""
    if await ports.databases.ownership_tag(target, await move.scratch_name()) is not None:
        return
    for name in made:
        try:
            await ports.databases.role_facts(target, name, move.data.instance_id.hex)
        except NotFound:
            continue
        return
    await ports.databases.unmark_rehearsal(target, move.migration_id)


async def _missing_roles(ports: Ports, instance: Instance, home: Server, target: Server) -> list[str]:
    """Roles that privileges in the database name, and that are not on the target: the rehearsal makes them."""
    tenant = (await ports.odoo_conf.read(instance)).credentials.user
    found = await ports.databases.database_facts(home, instance.database, tenant)
    missing: list[str] = []
    for name in found.grantees:
        try:
            await ports.databases.role_facts(target, name, instance.database)
        except NotFound:
            missing.append(name)
    return missing


def _move(ports: Ports, instance: Instance, migration: UUID) -> Move:
    asked = PlanUpgraded(
        instance_id=instance.id,
        customer_id=instance.customer_id,
        subscription_id=migration,
        from_plan="check",
        to_plan="check",
        plan_tier="check",
    )
    event = new_event(
        asked, subject=instance.id, id=uuid4(), time=ports.clock.now(), migrationid=migration, attempt=1
    )
    return Move(event, ports)
