"""Second step: every check that needs no downtime, and a healthy dedicated server, before anything stops."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from rehome_consumer.errors import (
    ConfUnusable,
    Incompatible,
    NotFound,
    Queued,
    Refused,
    RehomeError,
    Transient,
)
from rehome_consumer.facts import (
    BEGUN_AT,
    LIMITS,
    NEW_PASSWORD,
    NEW_USER,
    PLAN_TIER,
    SERVER_PROVISIONED,
    SERVER_REQUESTED,
    SERVER_RETURN_REQUESTED,
    STRATEGY,
    TARGET,
)
from rehome_consumer.move import new_tenant_of, scratch_name, tenant_of
from rehome_consumer.steps.support import conf_meaning, leaving, pacing, rehearsal, warm
from rehome_consumer.steps.support.identity import require_free, require_sole_user, require_tenant
from rehome_events.migration import MigrationPrepared

if TYPE_CHECKING:
    from rehome_consumer.model import DatabaseFacts, Instance, Server, ServerFacts
    from rehome_consumer.move import Move
    from rehome_consumer.ports.steps import Ports
    from rehome_consumer.steps.support.situation import Situation

log = logging.getLogger(__name__)


async def run(move: Move) -> MigrationPrepared:
    """Check, find or provision the server, check again with it, rehearse. Changes nothing of the tenant's.

    Raises:
        Queued: operators have paused all moves, and this one has not begun; it is for a later day; or it waits for its
            turn to rehearse, or for a table that cannot get its replica identity back while others use it.
    """
    if await move.facts.recall(BEGUN_AT) is None:
        try:
            await pacing.require_unpaused(move)
            await pacing.require_due(move)
        except Queued:
            await rehearsal.release_slot(move)
            raise
    if await move.facts.recall(TARGET) is not None:
        # An earlier run got as far as this: while it waits for a slot, looking again costs the pool nothing.
        await rehearsal.wait_for_a_slot(move)
    with leaving.waiting_for_tables():
        try:
            return await _prepare(move)
        except Queued:
            raise
        except Exception:
            # Nobody should wait for this migration until its next try; the error counts.
            with suppress(RehomeError):
                await rehearsal.release_slot(move)
            raise


async def _prepare(move: Move) -> MigrationPrepared:
    instance = await move.active_instance()
    source = await move.source()
    database = await check_source(move.ports, instance, source)
    user = (await move.tenant()).user
    await move.runtime.find(instance)
    limits = await move.facts.recall(LIMITS)
    warnings = (
        *await move.runtime.require_can_run(instance, limits),
        *await attached(move.ports, instance, source, user),
    )
    for warning in warnings:
        log.warning("prepare.warning instance=%s warning=%s", instance.id, warning)
    await check_conf(move.ports, instance, source)
    await conf_meaning.checked(move.ports, instance, source)
    await check_room(move.ports, database)
    target = await _dedicated_server(move)
    if await move.facts.recall(STRATEGY) is None:
        await rehearsal.clear(move)  # a run that was cut off would be in the way of the checks
        # A rollback that could not put them back has named them. They would be taken for the customer's own.
        await move.replicator.reclaim(source, instance.database, move.migration_id)
    await check_pair(move.ports, source, target, database)
    if not await warm.is_warm(move):  # else the role has the copy by now
        await check_target_role(move.ports, instance, target)
    await check_extensions(move.ports, instance, source, target, user)
    meaning = await conf_meaning.checked(move.ports, instance, source, target)
    rehearsed = await rehearsal.run(move)
    without_rows = (rehearsal.NO_ROWS,) if rehearsed and rehearsed.mode == "definitions" else ()
    chosen = await move.recorded(STRATEGY)
    return MigrationPrepared(
        instance_id=instance.id,
        warnings=(*warnings, *meaning.shown_warnings(), *without_rows),
        source=source.ref,
        target=target.ref,
        provisioned_now=await move.facts.recall(SERVER_PROVISIONED) is True,
        checks=(
            "source",
            "role",
            "service",
            "runtime",
            "odoo_conf",
            "room",
            "target",
            "versions",
            "extensions",
        ),
        rehearsal=rehearsed,
        strategy=chosen.name,
        strategy_reason=chosen.why,
    )


def describe(now: Situation) -> tuple[str, ...]:
    """What running it again would do."""
    target = now.target or "a dedicated server, requested from database-service"
    return (f"would run every check again, for {target}", now.source_line())


async def undo(move: Move) -> tuple[str, ...]:
    """Remove what a rehearsal left; give the server back if this migration asked for it, or name it."""
    left = await _clear_rehearsal(move)
    if not await move.facts.recall(SERVER_REQUESTED):
        return left
    return (*left, *await _give_back(move))


async def _clear_rehearsal(move: Move) -> tuple[str, ...]:
    if await move.facts.recall(TARGET) is None:
        return ()
    source, started = await move.source(), await move.facts.started()
    await move.databases.end_sessions(source, move.migration_id)
    busy = await leaving.lent_identities(move, source)
    left = busy + await leaving.from_backup_place(move, move.rehearsal_id)
    if "provision" in started:  # its undo has cleared the server
        return left
    return (*left, *await leaving.from_target(move, await move.scratch_name()))


async def _give_back(move: Move) -> tuple[str, ...]:
    server = await move.platform.dedicated_server(move.data.instance_id)
    if server is None:
        if await move.facts.recall(SERVER_RETURN_REQUESTED):
            return ()  # an earlier run of this rollback gave it back
        return (
            "a dedicated server was requested and is not in `db_servers`: check whether it appears later",
        )
    await move.facts.remember(SERVER_RETURN_REQUESTED, value=True)
    try:
        given_back = await move.database_service.give_back(server.id)
    except (Transient, Refused) as error:
        return (f"dedicated server {server.name} ({server.id}) could not be given back: {error}",)
    return () if given_back else (f"dedicated server {server.name} ({server.id}): give it back by hand",)


def describe_undo(now: Situation) -> str:
    """What undoing it would do."""
    if not now.facts.get(SERVER_REQUESTED):
        return f"nothing: {now.target} was there before" if now.target else "nothing"
    if now.target is None:
        return "look for the dedicated server that was requested, and give it back to database-service"
    return f"give dedicated server {now.target} back to database-service"


async def _dedicated_server(move: Move) -> Server:
    """The server made for this instance; requested if there is none.

    A time-out or an error of database-service does not mean that it made none: the next try looks first
    (source: its second call for one instance violates a unique name and answers 500).
    """
    instance = await move.instance()
    server = await move.platform.dedicated_server(instance.id)
    if server is None:
        await move.facts.remember(SERVER_REQUESTED, value=True)
        tier = await move.facts.recall(PLAN_TIER) or move.data.plan_tier
        answer = await move.database_service.provision(instance.id, instance.customer_id, tier)
        if answer.user is not None:
            await move.facts.remember(NEW_USER, answer.user)
        if answer.password is not None:
            await move.facts.remember(NEW_PASSWORD, answer.password)
        await move.facts.remember(SERVER_PROVISIONED, value=True)
        server = await move.platform.server(answer.db_server_id)
    if server is None or server.status != "active":
        raise Transient(
            f"the dedicated server of instance {instance.id} is not active in `db_servers` yet; waiting for it"
        )
    await move.facts.remember(TARGET, server.id)
    return server


# The checks take ports instead of a move, since `rehome check` runs them without a migration.


async def check_source(ports: Ports, instance: Instance, source: Server) -> DatabaseFacts:
    """The source answers and takes writes, the client programs can read it, and its role can be fenced alone."""
    here = await ports.databases.server_facts(source)
    _require_primary(source, here)
    await _require_new_enough(ports, source, here)
    await ports.databases.database_size(source, instance.database)
    user = (await tenant_of(ports, instance)).user
    role = await ports.databases.role_facts(source, user, instance.database)
    require_tenant(instance, role, source)
    require_sole_user(user, await ports.platform.others_with_login(instance.id, source, user), source)
    await ports.databases.require_admitted(source, instance.database, user)
    await ports.copier.require_dumpable(source, instance.database)
    return await ports.databases.database_facts(source, instance.database, user)


async def attached(ports: Ports, instance: Instance, source: Server, user: str) -> tuple[str, ...]:
    """What other programs than the tenant's (`user`) hang on the database, as warnings: a move leaves them behind."""
    found = await ports.databases.attached(source, instance.database, user)
    return tuple(f"database {instance.database} on {source.name}: {one}" for one in found)


async def check_conf(ports: Ports, instance: Instance, source: Server) -> None:
    """odoo.conf can be replaced, and names the database that is about to be moved."""
    await ports.odoo_conf.check_writable(instance)
    conf = await ports.odoo_conf.read(instance)
    if conf.database not in (None, "", "False", instance.database):
        raise ConfUnusable(f"{conf.path}: db_name is {conf.database}, the record says {instance.database}")
    if conf.host not in (source.host, instance.db_host) or conf.port != source.port:
        raise ConfUnusable(
            f"{conf.path}: db_host and db_port are {conf.host}:{conf.port}, "
            f"the record says {source.host}:{source.port}; find out which is right before anything moves"
        )


async def check_room(ports: Ports, database: DatabaseFacts) -> None:
    """The backup place can hold a backup of this database."""
    free = await ports.copier.free_bytes()
    wanted = int(database.bytes * ports.policy.room_factor)
    if free < wanted:
        raise Incompatible(
            f"the backup place has {free} bytes free, the backup of {database.name} may need {wanted}: make room"
        )


async def check_target_role(ports: Ports, instance: Instance, target: Server) -> None:
    """The role that the tenant gets on the dedicated server is not there, or nothing but a login; and may log in."""
    user = (await new_tenant_of(ports, instance)).user
    scratch = scratch_name("000000000000-1", instance.database)  # of some attempt
    await ports.databases.require_login_rules(target, instance.database, scratch, user)
    try:
        role = await ports.databases.role_facts(target, user, instance.database)
    except NotFound:
        return
    require_free(role, target)


async def check_extensions(
    ports: Ports, instance: Instance, source: Server, target: Server, user: str
) -> None:
    """No extension hides anything that a dump, with the rights of `user`, would leave behind."""
    await ports.databases.require_genuine_extensions(source, instance.database, user, target)


def _require_primary(server: Server, facts: ServerFacts) -> None:
    if facts.standby:
        raise Incompatible(
            f"{server.name} at {server.host}:{server.port} is a standby, which only follows another server: put the "
            "address of its primary into `db_servers` and replay the upgrade"
        )


async def _require_new_enough(ports: Ports, source: Server, here: ServerFacts) -> None:
    client = await ports.copier.client_version()
    if client < here.major:
        raise Incompatible(
            f"the client programs are of PostgreSQL {client}, {source.name} runs {here.major}: they read no newer "
            "server. Set REHOME_PG_BIN to the directory of newer ones"
        )


async def check_pair(ports: Ports, source: Server, target: Server, database: DatabaseFacts) -> None:
    """Versions and extensions: what the target must be able to take."""
    here: ServerFacts = await ports.databases.server_facts(source)
    there: ServerFacts = await ports.databases.server_facts(target)
    client = await ports.copier.client_version()
    _require_primary(target, there)
    if there.major < here.major:
        raise Incompatible(
            f"{source.name} runs PostgreSQL {here.major}, {target.name} only {there.major}: "
            "a dump does not restore into an older server. Provision a newer one and replay the upgrade"
        )
    if not here.major <= client <= there.major:
        raise Incompatible(
            f"the client programs are of PostgreSQL {client}; they must be between {here.major} (the source's) "
            f"and {there.major} (the target's). Set REHOME_PG_BIN to the directory of such programs"
        )
    missing = sorted(set(database.extensions) - there.extensions)
    if missing:
        raise Incompatible(
            f"{target.name} does not offer the extension(s) {', '.join(missing)}: install them there"
        )
