"""What it means that the tenant's role is let in on the dedicated server: from then on somebody may write.

`restore` lets it in and `start` makes sure that it is in; the undo of both is here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import NotFound, Refused
from rehome_consumer.facts import ACCESS_OPENED, ACCESS_REVOKED, SOURCE, TARGET
from rehome_consumer.fingerprint import TABLES
from rehome_consumer.model import OwnershipTag
from rehome_consumer.steps.support.common import (
    Event,
    instance_of,
    migration_of,
    new_tenant,
    scratch_name,
    server_of,
    tenant,
)
from rehome_consumer.steps.support.comparing import Side, differences

if TYPE_CHECKING:
    from rehome_consumer.model import Instance, Server
    from rehome_consumer.ports.steps import Ports

BOOKKEEPING: Final = frozenset({"ir_cron", "ir_cron_progress", "ir_cron_trigger", "bus_bus", "mail_presence"})
"""Tables that Odoo writes by itself as soon as it runs: when a job ran, who is on line."""
SIGNALING: Final = ("base_registry_signaling", "base_cache_signaling")
"""Beginnings of the sequences by which Odoo's processes tell each other to reload."""


async def run(event: Event, ports: Ports, instance: Instance, target: Server) -> None:
    """The verified copy takes its final name and the role may log in; done already: the role may log in.

    Raises:
        Refused: a rollback has looked whether anything was written. Whoever came in now would write unseen.
    """
    if await ports.facts.recall(ACCESS_REVOKED):
        raise Refused(
            f"a rollback has closed {instance.database} on {target.name} and found nothing written there: "
            "only back from here; replay the dead letter of step roll_back"
        )
    await ports.facts.remember(ACCESS_OPENED, value=True)
    await ports.databases.promote(
        target,
        scratch_name(event, instance.database),
        instance.database,
        (await new_tenant(ports, instance)).user,
        OwnershipTag(*migration_of(event), "verified"),
    )


async def undo(event: Event, ports: Ports) -> tuple[str, ...]:
    """Stop the instance, close its role on the dedicated server, and make sure that nothing was written there.

    Raises:
        Refused: something was. Going back would lose it, so a person decides.
    """
    if not await ports.facts.recall(ACCESS_OPENED) or await ports.facts.recall(ACCESS_REVOKED):
        return ()  # nobody was let in, or an earlier run has closed the door for good (see `run`)
    instance = await instance_of(event, ports)
    target = await server_of(ports, TARGET)
    with suppress(NotFound):  # a service that is gone serves nobody
        await ports.runtime.stop(instance)
    await ports.databases.close_role(target, (await new_tenant(ports, instance)).user)
    tag = await ports.databases.ownership_tag(target, instance.database)
    if tag is not None and tag.migration_id == migration_of(event)[0]:
        await _nothing_written(ports, instance, target)
    await ports.facts.remember(ACCESS_REVOKED, value=True)
    return ()


async def _nothing_written(ports: Ports, instance: Instance, target: Server) -> None:
    """Compare the new database with the source: they were equal when the role was let in."""
    source = await server_of(ports, SOURCE)
    new_role, old_role = (await new_tenant(ports, instance)).user, (await tenant(ports, instance)).user
    after = await ports.verifier.fingerprint(target, instance.database, new_role, _by_itself)
    before = await ports.verifier.fingerprint(source, instance.database, old_role, _by_itself)
    written = await differences(
        ports.verifier,
        Side(source, instance.database, old_role, before),
        Side(target, instance.database, new_role, after),
        _by_itself,
    )
    if written:
        raise Refused(
            f"something was written to {instance.database} on {target.name} before the move failed "
            f"({'; '.join(written[:5])}): going back would lose it. The source is fenced and whole, the instance "
            "is stopped. Look at what was written. Then mend the instance and go forward (rehome dead replay ID "
            "--forward, with the id of this rollback's letter), or drop what was written and replay this one"
        )


def _by_itself(kind: str, name: str) -> bool:
    """Whether Odoo writes it by itself: a table of its bookkeeping, and sequences of those tables."""
    name = name.rpartition(".")[2]
    if kind == TABLES:
        return name in BOOKKEEPING
    return name.startswith(SIGNALING) or name.removesuffix("_id_seq") in BOOKKEEPING
