"""What odoo.conf and the service's definition mean for a move: what is rewritten, what forbids it, what is noticed.

The rule: a setting that by its definition reaches the tenant's own database (the job runner's, the bus's, a replica)
is given the dedicated server's values, whatever it had: they are what Odoo itself uses for it when it is not set. What
would certainly break, or undo the move, is refused before anything is stopped. What only looks like it is a warning.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rehome_consumer.model import CONF_UNSET
from rehome_consumer.move import new_tenant_of, tenant_of
from rehome_consumer.steps.support.arguments import parsed
from rehome_consumer.steps.support.conf_rules import RULES
from rehome_consumer.steps.support.conf_settings import SETTINGS
from rehome_consumer.steps.support.relocation import Found, Meaning, Relocation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rehome_consumer.model import Conf, Instance, Server, Service
    from rehome_consumer.ports.steps import Ports

_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
LONGEST_NAME: Final = 60
"""Characters of a key or a section that a warning shows."""
_DEFAULT: Final = "DEFAULT"
_IN_FILE: Final = frozenset({"options", "queue_job"})


async def checked(ports: Ports, instance: Instance, source: Server, target: Server | None = None) -> Meaning:
    """Judge what odoo.conf and the service say now.

    Before there is a dedicated server (`target`), what depends on it is left out.

    Raises:
        ConfUnusable: an option of odoo.conf forbids the move; names it and says what to do.
        Incompatible: an argument or a variable of the service does.
    """
    if target is None:
        return await _judged_now(ports, instance, source, None)
    here, there = await ports.databases.server_facts(source), await ports.databases.server_facts(target)
    return await _judged_now(ports, instance, source, target, (here.major, there.major), tls=there.tls)


async def for_rewriting(ports: Ports, instance: Instance, source: Server, target: Server) -> Meaning:
    """As `checked`, without asking the servers again: the instance is down."""
    return await _judged_now(ports, instance, source, target)


async def _judged_now(
    ports: Ports,
    instance: Instance,
    source: Server,
    target: Server | None,
    versions: tuple[int, int] | None = None,
    *,
    tls: bool | None = None,
) -> Meaning:
    login, new_login = await tenant_of(ports, instance), await new_tenant_of(ports, instance)
    hosts = [host.casefold() for host in (source.host, instance.db_host) if host]
    aliases = frozenset(host for host in hosts if target is None or host != target.host.casefold())
    relocation = Relocation(instance.database, source, aliases, login, new_login, target, versions, tls)
    meaning = judged(await ports.odoo_conf.read(instance), await ports.runtime.find(instance), relocation)
    meaning.require_movable()
    return meaning


def judged(conf: Conf, service: Service, relocation: Relocation) -> Meaning:
    """Apply `SETTINGS`, and look for the pool's host in everything that the table does not know. Pure."""
    meaning = Meaning()
    command = parsed(service.arguments)
    for found in _settings(conf, service, command.options, meaning):
        value = _resolved(found, service.env, meaning)
        if value is not None:
            RULES[found.setting.action](found, value, relocation, meaning)
    meaning.warnings += _mentions(conf, service, command.rest, relocation)
    meaning.warnings += [
        f"service {service.name}: {path} in its container is a file of the definition's own (a Swarm config or "
        "secret); if Odoo reads that one, the move would not take effect"
        for path in service.own_files
        if path.rpartition("/")[2].endswith((".conf", ".odoorc"))
    ]
    return meaning


def _settings(
    conf: Conf, service: Service, arguments: tuple[tuple[str, str], ...], meaning: Meaning
) -> Iterator[Found]:
    for setting in SETTINGS:
        if setting.place in _IN_FILE:
            value = conf.sections.get(setting.place, {}).get(setting.key, "")
            values, where = [value], f"{conf.path}: {setting.key} in [{setting.place}]"
        elif setting.place == "environment":
            values = [service.env.get(setting.key, "")]
            where = f"service {service.name}: variable {setting.key}"
        else:
            values = [value for key, value in arguments if key == setting.key]
            where = f"service {service.name}: argument {setting.key}"
        complaints = meaning.in_conf if setting.place in _IN_FILE else meaning.in_service
        for value in values:
            if value not in CONF_UNSET:
                yield Found(setting, value, where, complaints)


def _resolved(found: Found, environment: Mapping[str, str], meaning: Meaning) -> str | None:
    """The value of an argument that a shell takes from a variable; None where the variable is rewritten, or unknown."""
    variable = _VARIABLE.fullmatch(found.value) if found.setting.place == "arguments" else None
    if variable is None:
        return found.value
    name = variable[1] or variable[2]
    if name in meaning.variables:
        return None
    if name not in environment:
        meaning.warnings.append(f"{found.where} is taken from ${name}, which the service does not set")
        return None
    return environment[name]


def _mentions(conf: Conf, service: Service, words: tuple[str, ...], relocation: Relocation) -> Iterator[str]:
    """Where the pool's host is named by something that the table does not know."""
    known = {(one.place, one.key) for one in SETTINGS}
    defaults = conf.sections.get(_DEFAULT, {})
    for section, options in conf.sections.items():
        for key, value in options.items():
            inherited = section != _DEFAULT and defaults.get(key) == value
            if (section, key) not in known and not inherited and relocation.names_pool(value):
                yield f"{conf.path}: {_short(key)} in [{_short(section)}] names the pool, and stays as it is"
    for name, value in service.env.items():
        if ("environment", name) not in known and relocation.names_pool(value):
            yield f"service {service.name}: variable {_short(name)} names the pool, and stays as it is"
    if any(relocation.names_pool(word) for word in words):
        yield f"service {service.name}: an argument names the pool, and stays as it is"


def _short(name: str) -> str:
    """A name that the tenant chose, for people."""
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
