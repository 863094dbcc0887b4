"""Sixth step: odoo.conf and the service's environment name the dedicated server.

Of the four values only odoo.conf's count after the first boot; the environment is kept in step with it so that
nobody is misled (source: measured on a live instance). What else reaches the tenant's database follows it, in the
file and in the environment: see `steps.support.conf_settings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import NotFound
from rehome_consumer.facts import CONF_CHANGES, RESTARTED_AT, SPEC
from rehome_consumer.steps.support import conf_meaning
from rehome_consumer.steps.support.conf_changes import changes_of
from rehome_consumer.steps.support.relocation import value_of
from rehome_events.migration import MigrationConfRewritten

if TYPE_CHECKING:
    from rehome_consumer.model import Credentials, Server
    from rehome_consumer.move import Move
    from rehome_consumer.steps.support.situation import Situation

ODOO_DATABASE: Final = "ODOO_DATABASE_"
"""Prefix of the four variables that name the database in the service's environment."""


async def run(move: Move) -> MigrationConfRewritten:
    """Back up the file, replace the values, set the variables; starts nothing."""
    instance = await move.active_instance()
    target = await move.target()
    await move.tenant()  # today's login is recorded before the file that holds it changes
    credentials = await move.new_tenant()
    meaning = await conf_meaning.for_rewriting(move.ports, instance, await move.source(), target)
    conf = await move.odoo_conf.read(instance)
    changes = changes_of(conf, target, credentials, meaning.options)
    changes = await move.facts.remember(CONF_CHANGES, changes)  # once it is rewritten, nobody could tell
    backup = await move.odoo_conf.back_up(instance, move.tag)
    await move.odoo_conf.rewrite(instance, target.host, target.port, credentials, meaning.options)
    also = {name: value_of(part, target, credentials) for name, part in meaning.variables.items()}
    await move.runtime.configure(instance, {**also, **_environment(target, credentials)})
    return MigrationConfRewritten(
        instance_id=instance.id,
        path=str(conf.path),
        backup_path=str(backup),
        changed=tuple(one.name for one in changes),
    )


def describe(now: Situation) -> tuple[str, ...]:
    """What running it again would do."""
    return (f"would point odoo.conf to {now.target_name}", now.conf_line())


async def undo(move: Move) -> tuple[str, ...]:
    """The file byte for byte and the service's definition as they were before."""
    instance = await move.instance()
    if await move.odoo_conf.restore_file(instance, move.tag):
        await move.odoo_conf.remove_backup(instance, move.tag)
    spec = await move.facts.recall(SPEC)
    # An earlier run of this rollback may have started the instance again: it is not stopped once more.
    if spec is not None and await move.facts.recall(RESTARTED_AT) is None:
        try:
            await move.runtime.restore_spec(instance, spec)
        except NotFound as error:
            return (f"the service's definition could not be restored: {error}",)
    return ()


def describe_undo(now: Situation) -> str:
    """What undoing it would do."""
    path = now.conf or "odoo.conf"
    if now.conf_backup is None:
        file = f"leave {path} as it is (there is no backup of it)"
    else:
        file = f"restore {path} from {now.conf_backup}"
    return f"{file}; restore the service's definition, stopped"


def _environment(target: Server, credentials: Credentials) -> dict[str, str]:
    """The four variables for the service."""
    return {
        f"{ODOO_DATABASE}HOST": target.host,
        f"{ODOO_DATABASE}PORT_NUMBER": str(target.port),
        f"{ODOO_DATABASE}USER": credentials.user,
        f"{ODOO_DATABASE}PASSWORD": credentials.password.reveal(),
    }
