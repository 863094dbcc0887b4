"""Sixth step: odoo.conf and the service's environment name the dedicated server.

Only odoo.conf counts after the first boot; the environment is kept in step with it so that nobody is
misled (source: measured on a live instance).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehome_consumer.errors import NotFound
from rehome_consumer.steps.support.common import (
    Event,
    environment,
    instance_of,
    new_tenant,
    recall_spec,
    server_noted,
    tag_of,
    tenant,
    wanted_instance,
)
from rehome_events.migration import MigrationConfRewritten

if TYPE_CHECKING:
    from rehome_consumer.ports.steps import Ports


async def run(event: Event, ports: Ports) -> MigrationConfRewritten:
    """Keep the old file, replace the four values, set the four variables; starts nothing."""
    instance = await wanted_instance(event, ports)
    target = await server_noted(ports, "target")
    await tenant(ports, instance)  # today's login is noted before the file that holds it changes
    credentials = await new_tenant(ports, instance)
    kept = await ports.odoo_conf.keep(instance, tag_of(event))
    changed = await ports.odoo_conf.rewrite(instance, target.host, target.port, credentials)
    noted = await ports.facts.remember("conf_changed", list(changed))
    await ports.runtime.configure(instance, environment(target.host, target.port, credentials))
    conf = await ports.odoo_conf.read(instance)
    return MigrationConfRewritten(
        instance_id=instance.id, path=str(conf.path), backup_path=str(kept), changed=tuple(noted)
    )


async def undo(event: Event, ports: Ports) -> tuple[str, ...]:
    """The file byte for byte and the service's definition as they were before."""
    instance = await instance_of(event, ports)
    if await ports.odoo_conf.restore_file(instance, tag_of(event)):
        await ports.odoo_conf.forget(instance, tag_of(event))
    spec = await recall_spec(ports.facts)
    if spec is not None:
        try:
            await ports.runtime.restore_spec(instance, spec)
        except NotFound as error:
            return (f"the service's definition could not be put back: {error}",)
    return ()
