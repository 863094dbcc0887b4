"""`rehome check`: what an upgrade would do to an instance, without changing anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import bootstrap
from rehome_consumer.adapters.platform.instances import PostgresPlatform
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.commands.arguments import an_id
from rehome_consumer.commands.lines import field, printed, row, say
from rehome_consumer.commands.rehearsing import rehearse
from rehome_consumer.commands.show import as_json
from rehome_consumer.errors import NotFound, Queued, RehomeError
from rehome_consumer.model import TERMINATED
from rehome_consumer.move import tenant_of
from rehome_consumer.operators.expected import LOOKED_AT, Moved, described, expected
from rehome_consumer.settings import read_settings
from rehome_consumer.steps import accept, prepare
from rehome_consumer.steps.support import conf_meaning, rehearsal, warm
from rehome_events.parts import Limits

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from rehome_consumer.model import DatabaseFacts, Instance, Server
    from rehome_consumer.ports.steps import Ports
    from rehome_consumer.settings import Settings

NEEDED: Final = ("platform_dsn", "data_root", "backup_root")
NEVER: Final = frozenset({"creating", TERMINATED})
"""Statuses in which an upgrade is rejected."""
WIDTHS: Final = (10, 6)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and its outcome; a warning is about what cannot be known before, and fails nothing."""

    check: str
    ok: bool
    detail: str
    warning: bool = False

    @property
    def mark(self) -> str:
        """How the outcome is printed."""
        if self.warning:
            return "warn"
        return "ok" if self.ok else "FAILED"


NOT_DONE: Final = "not done: "
"""How the detail of a rehearsal begins that nobody has tried: it says nothing about a move."""

NOT_REHEARSED: Final = Finding(
    "rehearsal",
    ok=True,
    warning=True,
    detail=f"{NOT_DONE}whether every object and row can be restored, and how long that takes, only --rehearse tells",
)


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "check",
        help="whether a move of this instance would pass its checks; changes nothing",
        description="Run every check that a move makes before it stops anything, and say on which server the "
        "instance's data is. Exit code 1 when a check fails, or the rehearsal that was asked for could not be done; a "
        "warning fails nothing. Needs REHOME_PLATFORM_DSN, "
        "REHOME_DATA_ROOT, REHOME_BACKUP_ROOT, and the settings of the runtime (REHOME_RUNTIME). With --rehearse the "
        "data is moved once, from a snapshot, into a scratch database that is removed again: only that tells whether "
        "every object and every row can be restored.",
    )
    parser.add_argument("instance", type=an_id, metavar="INSTANCE", help="the instance's id")
    parser.add_argument(
        "--rehearse", action="store_true", help="move the data once while the instance serves, and compare"
    )
    parser.add_argument(
        "--on",
        metavar="SERVER",
        help="rehearse on this server of db_servers, by name; default: the dedicated server, if there is one",
    )
    parser.add_argument(
        "--plan",
        metavar="PLAN",
        help="check with the CPU and memory that this plan grants, from billing's table (REHOME_BILLING_DSN); "
        "by default with those that the service has",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(work=_check)


async def _check(args: argparse.Namespace) -> int:
    settings = read_settings(needed=NEEDED)
    async with (
        bootstrap.command_facts(settings) as facts,
        bootstrap.ports(settings, facts) as ports,
        bootstrap.state_pool(settings) as pool,
    ):
        instance = await ports.platform.instance(args.instance)
        if instance is None:
            raise NotFound(
                f"instance {args.instance} is not in the platform's table `instances`; is the id right?"
            )
        views = PostgresJournalViews(pool)
        findings = [_status(instance), await _others(views, instance)]
        limits, home = await _limits(ports, args.plan), await ports.platform.home(instance)
        findings += await _findings(ports, instance, home, limits)
        findings += await _downtime(views, ports, instance, home, findings)
        if args.rehearse:
            findings.append(await _rehearsal(settings, ports, instance, home, args.on))
        elif home is not None and home.kind == "shared":
            findings.append(NOT_REHEARSED)
    passed = all(one.ok for one in findings)
    if args.json:
        as_json({"instance": instance.id, "ok": passed, "checks": [asdict(one) for one in findings]})
    else:
        say(row(("CHECK", "", "DETAIL"), WIDTHS))
        for one in findings:
            start = row((one.check, one.mark), WIDTHS)
            printed(field(start, one.detail, sum(WIDTHS) + 4))
        say(_verdict(findings))
    return 0 if passed else 1


def _verdict(findings: list[Finding]) -> str:
    failed = [one for one in findings if not one.ok]
    if not failed:
        return "a move would pass its checks"
    if all(one.detail.startswith(NOT_DONE) for one in failed):
        return "whether a move would pass its checks is not known: the rehearsal was not done"
    return "a move would fail its checks, and stop nothing"


async def _limits(ports: Ports, plan: str | None) -> Limits | None:
    """What the plan grants; None without a plan."""
    if plan is None:
        return None
    granted = await ports.platform.entitlements(plan)
    if granted is None:
        raise NotFound(f"no plan {plan} is in force; is the name right, and REHOME_BILLING_DSN set?")
    return Limits(**granted.model_dump(exclude={"db_type"}))


def _status(instance: Instance) -> Finding:
    if instance.status in NEVER:
        return Finding("status", ok=False, detail=f"it is {instance.status}: an upgrade would be rejected")
    if instance.status in accept.BUSY:
        why = f"it is {instance.status}: an upgrade would wait until that is over"
        return Finding("status", ok=False, detail=why)
    return Finding("status", ok=True, detail=f"{instance.status}")


async def _others(views: PostgresJournalViews, instance: Instance) -> Finding:
    """No other migration holds the instance. Where no consumer ever ran, there is no migration."""
    try:
        found = await views.migrations(instance.id, 1, ended=False)
    except NotFound:
        found = []
    if found:
        why = f"migration {found[0].id} is {found[0].state}: another upgrade would wait for its end"
        return Finding("no_other", ok=False, detail=f"{why}; rehome status {instance.id}")
    return Finding("no_other", ok=True, detail="no migration of it is under way")


async def _findings(
    ports: Ports, instance: Instance, home: Server | None, limits: Limits | None
) -> list[Finding]:
    if home is None:
        return [Finding("home", ok=False, detail="its record names no database server")]
    findings = [Finding("home", ok=True, detail=f"{instance.database} is on {home.name} ({home.kind})")]
    if home.kind == "dedicated":
        detail = "it is on a dedicated server already: only limits would change"
        findings.append(Finding("move", ok=True, detail=detail))
        await _try(findings, "service", lambda: _service(ports, instance))
        await _runtime(findings, ports, instance, limits)
        return findings
    database = await _source(findings, ports, instance, home)
    await _attached(findings, ports, instance, home)
    await _try(findings, "service", lambda: _service(ports, instance))
    await _runtime(findings, ports, instance, limits)
    await _try(findings, "odoo_conf", lambda: _conf(ports, instance, home))
    if database is not None:
        await _try(findings, "room", lambda: _room(ports, database))
    target = await ports.platform.dedicated_server(instance.id)
    if target is None:
        detail = "none yet: database-service would be asked for one; versions are compared when it exists"
        findings.append(Finding("target", ok=True, detail=detail))
    elif database is not None:
        await _try(findings, "target", lambda: _target(ports, instance, home, target, database))
    findings.append(await _strategy(ports, instance, home, target))
    return [*findings, *await _settings(ports, instance, home, target)]


async def _strategy(ports: Ports, instance: Instance, home: Server, target: Server | None) -> Finding:
    """Whether the move would be warm; where it would not, why, and what to do about it. Fails nothing."""
    try:
        size = await ports.databases.database_size(home, instance.database)
        user = (await tenant_of(ports, instance)).user
        rehearsed = rehearsal.mode_for(ports.policy, size)
        why = await warm.why_cold(ports, instance.database, user, home, target, rehearsed)
        lent = () if why else await ports.replicator.keyless(home, instance.database)
    except RehomeError as error:
        return Finding("strategy", ok=True, warning=True, detail=f"it cannot be known: {error}")
    if why is None:
        later = (
            ""
            if target
            else "; of the dedicated server it needs PostgreSQL 16 or newer, and a way to the pool"
        )
        return Finding("strategy", ok=True, detail=f"warm: {warm.with_lent(lent)}{later}")
    return Finding("strategy", ok=True, detail=f"cold: {why}")


async def _downtime(
    views: PostgresJournalViews,
    ports: Ports,
    instance: Instance,
    home: Server | None,
    findings: list[Finding],
) -> list[Finding]:
    """How long the customer has to expect to be down, by earlier moves of the same kind. Fails nothing."""
    strategy = next((one.detail.partition(":")[0] for one in findings if one.check == "strategy"), "")
    if home is None or strategy not in ("warm", "cold"):
        return []
    try:
        size = await ports.databases.database_size(home, instance.database)
        moves = [Moved(**one) for one in await views.moved(LOOKED_AT)]
    except RehomeError as error:
        return [Finding("downtime", ok=True, warning=True, detail=f"it cannot be known: {error}")]
    return [Finding("downtime", ok=True, detail=described(expected(moves, strategy, size), strategy))]


async def _settings(ports: Ports, instance: Instance, home: Server, target: Server | None) -> list[Finding]:
    """What else of odoo.conf and the service names the database or its server."""
    try:
        meaning = await conf_meaning.checked(ports, instance, home, target)
    except RehomeError as error:
        return [Finding("settings", ok=False, detail=str(error))]
    also = meaning.also_rewritten() or "nothing"
    return [
        Finding("settings", ok=True, detail=f"besides the four options of odoo.conf, rewritten: {also}"),
        *(Finding("settings", ok=True, detail=text, warning=True) for text in meaning.shown_warnings()),
    ]


async def _rehearsal(
    settings: Settings, ports: Ports, instance: Instance, home: Server | None, on: str | None
) -> Finding:
    try:
        if home is None or home.kind == "dedicated":
            return Finding("rehearsal", ok=True, detail="there is nothing to move")
        try:
            target = await _server(settings, ports, instance, on)
        except NotFound as error:
            return Finding("rehearsal", ok=False, detail=f"{NOT_DONE}{error}")
        return Finding("rehearsal", ok=True, detail=await rehearse(ports, instance, home, target))
    except Queued as error:
        return Finding(
            "rehearsal", ok=False, detail=f"{NOT_DONE}{error}. This command does not: repeat it then"
        )
    except RehomeError as error:
        return Finding("rehearsal", ok=False, detail=str(error))


async def _server(settings: Settings, ports: Ports, instance: Instance, on: str | None) -> Server:
    """Where to rehearse. Raises NotFound."""
    if on is None:
        found = await ports.platform.dedicated_server(instance.id)
        if found is None:
            raise NotFound("there is no dedicated server yet: name a server to rehearse on with --on NAME")
        return found
    async with bootstrap.platform_pool(settings) as pool:
        servers = await PostgresPlatform(pool).tenant_servers()
    named = next((server for server in servers if server.name == on), None)
    if named is None:
        names = ", ".join(sorted(server.name for server in servers)) or "none"
        raise NotFound(f"there is no server {on} in `db_servers`; there are: {names}")
    return named


async def _source(
    findings: list[Finding], ports: Ports, instance: Instance, home: Server
) -> DatabaseFacts | None:
    try:
        database = await prepare.check_source(ports, instance, home)
    except RehomeError as error:
        findings.append(Finding("source", ok=False, detail=str(error)))
        return None
    size = f"{database.bytes / 1_000_000:.0f} MB, {database.encoding}, role {database.owner}"
    findings.append(Finding("source", ok=True, detail=size))
    return database


async def _attached(findings: list[Finding], ports: Ports, instance: Instance, home: Server) -> None:
    """What other programs hang on the database, also where the source cannot be moved because of it."""
    try:
        found = await prepare.attached(ports, instance, home, (await tenant_of(ports, instance)).user)
    except RehomeError as error:
        if findings[-1].ok:  # else the source's own finding says why
            findings.append(Finding("attached", ok=False, detail=str(error)))
        return
    if not found:
        findings.append(Finding("attached", ok=True, detail="no other program or login uses the database"))
    findings += [Finding("attached", ok=True, detail=one, warning=True) for one in found]


async def _service(ports: Ports, instance: Instance) -> str:
    service = await ports.runtime.find(instance)
    return f"{service.name}, {service.replicas} replica(s), {len(service.running)} running"


async def _runtime(findings: list[Finding], ports: Ports, instance: Instance, limits: Limits | None) -> None:
    async def look() -> str:
        warnings.extend(await ports.runtime.require_can_run(instance, limits))
        return "it can start again" + (" with the plan's limits" if limits else "")

    warnings: list[str] = []
    await _try(findings, "runtime", look)
    findings += [Finding("runtime", ok=True, detail=warning, warning=True) for warning in warnings]


async def _conf(ports: Ports, instance: Instance, home: Server) -> str:
    await prepare.check_conf(ports, instance, home)
    conf = await ports.odoo_conf.read(instance)
    return f"{conf.path} can be replaced; it names {conf.host}:{conf.port}"


async def _room(ports: Ports, database: DatabaseFacts) -> str:
    await prepare.check_room(ports, database)
    return f"{await ports.copier.free_bytes() / 1_000_000_000:.1f} GB free at the backup place"


async def _target(
    ports: Ports, instance: Instance, home: Server, target: Server, database: DatabaseFacts
) -> str:
    await prepare.check_pair(ports, home, target, database)
    await prepare.check_target_role(ports, instance, target)
    user = (await tenant_of(ports, instance)).user
    await prepare.check_extensions(ports, instance, home, target, user)
    return f"{target.name} exists and can take it"


async def _try(findings: list[Finding], name: str, check: Callable[[], Awaitable[str]]) -> None:
    try:
        findings.append(Finding(name, ok=True, detail=await check()))
    except RehomeError as error:
        findings.append(Finding(name, ok=False, detail=str(error)))
