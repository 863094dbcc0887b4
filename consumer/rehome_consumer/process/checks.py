"""What a consumer looks at before it works: one check for each part, on the ports that will need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import NotReady, Unreachable
from rehome_consumer.rabbitmq.topology import definitions

if TYPE_CHECKING:
    from rehome_consumer.ports.engine import Journal
    from rehome_consumer.ports.operators import QueueInspector
    from rehome_consumer.ports.readiness import Part
    from rehome_consumer.ports.steps import Ports
    from rehome_consumer.process.readiness import Check

SAMPLE: Final = 50
"""Instances of which one must have its directory below the data root."""


def checks_of(ports: Ports, journal: Journal, *, only_look: bool = False) -> dict[Part, Check]:
    """The checks of all parts but the broker, for which there is `require_topology`.

    With `only_look` a backup place that no consumer has used yet is not marked as the one that all of them use.
    """

    async def platform() -> None:
        await ports.platform.some_instances(1)

    async def client_programs() -> None:
        await ports.copier.client_version()

    async def backup_place() -> None:
        known = await journal.place_mark()
        if known is None and only_look:
            await ports.copier.free_bytes()
            return
        found = await ports.copier.require_place(known)
        if known is None and (winner := await journal.place_mark(found)) != found:
            await ports.copier.require_place(winner)

    async def data_root() -> None:
        await ports.odoo_conf.require_root(await ports.platform.some_instances(SAMPLE))

    return {
        "journal": journal.require_key,
        "platform": platform,
        "database_service": ports.database_service.require_ready,
        "runtime": ports.runtime.require_ready,
        "client_programs": client_programs,
        "backup_place": backup_place,
        "data_root": data_root,
    }


async def require_topology(inspector: QueueInspector, *, connected: bool = True) -> None:
    """Return when the broker has all of the saga's queues and exchanges.

    Bindings and arguments can be read with a monitoring login only: `rehome topology check` does.

    Raises:
        NotReady: some are missing; names them.
        Unreachable, TimedOut: the broker does not answer.
    """
    if not connected:
        raise Unreachable("the connection to RabbitMQ is lost, and being made again (REHOME_AMQP_URL)")
    wanted = definitions()
    queues = [str(one["name"]) for one in wanted["queues"]]
    there = await inspector.queues(queues)
    missing = [f"queue {name}" for name in queues if name not in there]
    exchanges = await inspector.missing_exchanges([str(one["name"]) for one in wanted["exchanges"]])
    missing += [f"exchange {name}" for name in exchanges]
    if missing:
        raise NotReady(
            f"the broker has no {', no '.join(missing)}: rehome topology apply, then rehome topology check"
        )
