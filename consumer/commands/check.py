"""`rehome check`: what an upgrade would do to an instance, without changing anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from consumer import bootstrap
from consumer.adapters.notes import MemoryNotes
from consumer.commands.show import as_json, as_table
from consumer.errors import NotFound, RehomeError
from consumer.settings import read_settings
from consumer.steps import prepare

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from consumer.model import DatabaseFacts, Instance, Server
    from consumer.ports import Ports

NEEDED = ("platform_dsn", "data_root", "backup_root")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and its outcome."""

    check: str
    ok: bool
    detail: str


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "check",
        help="what a move of this instance would meet; changes nothing",
        description="Run every check that a move makes before it stops anything, and say where the instance's data "
        "lives. Exit code 1 when a check fails. Needs the settings of the consumer.",
    )
    parser.add_argument("instance", type=UUID, metavar="INSTANCE", help="the instance's id")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(work=_check)


async def _check(args: argparse.Namespace) -> int:
    async with bootstrap.ports(read_settings(needed=NEEDED), MemoryNotes()) as ports:
        instance = await ports.platform.instance(args.instance)
        if instance is None:
            raise NotFound(
                f"instance {args.instance} is not in the platform's table `instances`; is the id right?"
            )
        findings = await _findings(ports, instance)
    sound = all(one.ok for one in findings)
    if args.json:
        as_json({"instance": instance.id, "ok": sound, "checks": [asdict(one) for one in findings]})
    else:
        as_table(
            ("CHECK", "", "DETAIL"),
            ((one.check, "ok" if one.ok else "FAILED", one.detail) for one in findings),
            empty="",
        )
        print(
            "a move would pass its checks" if sound else "a move would be refused; nothing would be stopped"
        )
    return 0 if sound else 1


async def _findings(ports: Ports, instance: Instance) -> list[Finding]:
    home = await ports.platform.home(instance)
    if home is None:
        return [
            Finding("home", ok=False, detail=f"instance {instance.id} has no database server in its record")
        ]
    findings = [Finding("home", ok=True, detail=f"{instance.database} lives on {home.name} ({home.kind})")]
    if home.kind == "dedicated":
        return [
            *findings,
            Finding("move", ok=True, detail="on a dedicated server already: only limits would change"),
        ]
    database = await _source(findings, ports, instance, home)
    await _try(findings, "service", lambda: _service(ports, instance))
    await _try(findings, "odoo_conf", lambda: prepare.check_conf(ports, instance, home))
    if database is not None:
        await _try(findings, "room", lambda: prepare.check_room(ports, database))
    target = await ports.platform.dedicated_server(instance.id)
    if target is None:
        findings.append(
            Finding("target", ok=True, detail="none yet: database-service would be asked for one")
        )
    elif database is not None:
        await _try(findings, "target", lambda: prepare.check_pair(ports, home, target, database), target.name)
    return findings


async def _source(
    findings: list[Finding], ports: Ports, instance: Instance, home: Server
) -> DatabaseFacts | None:
    try:
        database = await prepare.check_source(ports, instance, home)
    except RehomeError as error:
        findings.append(Finding("source", ok=False, detail=str(error)))
        return None
    findings.append(Finding("source", ok=True, detail=f"{database.bytes} bytes, {database.encoding}"))
    return database


async def _service(ports: Ports, instance: Instance) -> None:
    await ports.runtime.find(instance)


async def _try(
    findings: list[Finding], name: str, check: Callable[[], Awaitable[None]], detail: str = ""
) -> None:
    try:
        await check()
    except RehomeError as error:
        findings.append(Finding(name, ok=False, detail=str(error)))
    else:
        findings.append(Finding(name, ok=True, detail=detail))
