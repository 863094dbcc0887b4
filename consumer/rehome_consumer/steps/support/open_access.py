"""The tenant's role may log in on the dedicated server: from then on users may write there.

`restore` allows it and `start` makes sure of it; the undo of both is here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import NotFound, Refused
from rehome_consumer.facts import ACCESS_OPENED, ACCESS_REVOKED
from rehome_consumer.fingerprint import TABLES
from rehome_consumer.model import OwnershipTag, Scope
from rehome_consumer.steps.support.comparing import Fingerprinted, differences

if TYPE_CHECKING:
    from rehome_consumer.move import Move

BOOKKEEPING: Final = frozenset({"ir_cron", "ir_cron_progress", "ir_cron_trigger", "bus_bus", "mail_presence"})
"""Tables that Odoo writes by itself as soon as it runs: when a job ran, who is on line."""
SIGNALING: Final = ("base_registry_signaling", "base_cache_signaling")
"""Beginnings of the sequences by which Odoo's processes make each other reload."""


async def run(move: Move) -> None:
    """The verified copy takes its final name and the role may log in; done already: the role may log in.

    Raises:
        Refused: a rollback has checked that nothing was written. Who logged in now would write unnoticed.
    """
    instance, target = await move.instance(), await move.target()
    if await move.facts.recall(ACCESS_REVOKED):
        raise Refused(
            f"a rollback has closed {instance.database} on {target.name} and found nothing written there: "
            "from here the migration only goes back; replay the dead letter of step roll_back"
        )
    await move.facts.remember(ACCESS_OPENED, value=True)
    await move.databases.promote(
        target,
        await move.scratch_name(),
        instance.database,
        (await move.new_tenant()).user,
        OwnershipTag(move.migration_id, move.attempt, "verified"),
    )


async def undo(move: Move) -> None:
    """Stop the instance, close its role on the dedicated server, and make sure that nothing was written there.

    Raises:
        Refused: something was. Going back would lose it, so a person decides.
    """
    if not await move.facts.recall(ACCESS_OPENED) or await move.facts.recall(ACCESS_REVOKED):
        return  # nobody could log in, or an earlier run has closed the role for good (see `run`)
    instance = await move.instance()
    target = await move.target()
    with suppress(NotFound):  # a service that is not there serves nobody
        await move.runtime.stop(instance)
    await move.databases.close_role(target, (await move.new_tenant()).user, opened=True)
    tag = await move.databases.ownership_tag(target, instance.database)
    promoted = tag is not None and tag.migration_id == move.migration_id
    await _require_nothing_elsewhere(move, instance.database if promoted else await move.scratch_name())
    if promoted:
        await _require_nothing_written(move)
    await move.facts.remember(ACCESS_REVOKED, value=True)


async def _require_nothing_elsewhere(move: Move, database: str) -> None:
    """The role has nothing on the dedicated server but this database: it may have made or renamed one."""
    target, role = await move.target(), (await move.new_tenant()).user
    with suppress(NotFound):  # no role, no database of it
        found = await move.databases.role_facts(target, role, database)
        if found.elsewhere:
            raise Refused(
                f"role {role} has more on {target.name} than database {database}: {'; '.join(found.elsewhere[:5])}. "
                "Somebody made or renamed it since the role may log in, and going back would lose it. The source is "
                "fenced and complete, the instance is stopped. Put back what was renamed, save and drop what was made, "
                "then replay the dead letter of this rollback"
            )


async def _require_nothing_written(move: Move) -> None:
    """Compare the new database with the source: they were equal when the role was allowed to log in."""
    instance, source, target = await move.instance(), await move.source(), await move.target()
    new_role, old_role = (await move.new_tenant()).user, (await move.tenant()).user
    scope = Scope(spared=_by_itself)
    after = await move.verifier.fingerprint(target, instance.database, new_role, scope)
    before = await move.verifier.fingerprint(source, instance.database, old_role, scope)
    written = await differences(
        move.verifier,
        Fingerprinted(source, instance.database, old_role, before, scope),
        Fingerprinted(target, instance.database, new_role, after, scope),
    )
    if written:
        raise Refused(
            f"something was written to {instance.database} on {target.name} before the move failed "
            f"({'; '.join(written[:5])}): going back would lose it. The source is fenced and complete, the instance "
            "is stopped. Look at what was written. Then fix the instance and go forward (rehome dead replay ID "
            "--forward, with the id of this rollback's dead letter), or drop what was written and replay this one"
        )


def _by_itself(kind: str, name: str) -> bool:
    """Whether Odoo writes it by itself: a table of its bookkeeping, and sequences of those tables."""
    name = name.rpartition(".")[2]
    if kind == TABLES:
        return name in BOOKKEEPING
    return name.startswith(SIGNALING) or name.removesuffix("_id_seq") in BOOKKEEPING
