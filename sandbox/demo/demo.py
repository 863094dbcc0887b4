"""`rehome demo`: a complete move on this machine, with real parts, observed and checked from outside."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import signal
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from rehome_events.printable import visible, visible_json
from sandbox.demo.faults import FAILING
from sandbox.demo.observation import conf_diff, database_dsn, observe
from sandbox.demo.story import Check, Story, event_line
from sandbox.odoo.writers import Writers
from sandbox.platform.billing import Billing
from sandbox.platform.local import LocalPlatform, Site, local_platform
from sandbox.platform.subscriber import ENDS, Subscriber
from sandbox.postgres.tenants import Tenant
from sandbox.swarm.borrowed import borrowed
from sandbox.swarm.engine import EngineMissingError
from sandbox.swarm.platform import SwarmPlatform, swarm_platform
from sandbox.system.scratch import remove_scratch_directory, scratch_directory
from sandbox.system.serving import until_stopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from rehome_events.envelope import CloudEvent

    AnyPlatform = LocalPlatform | SwarmPlatform

PLAN: Final = "premium-monthly"
LIMIT_SECONDS: Final = 600.0
WIDTH: Final = 120
"""Columns where there is no terminal."""
UNDISTURBED_SECONDS: Final = 5.0
"""Longest gap between two writes of the other tenant that counts as undisturbed on a busy machine."""

CHAIN: Final = (
    "migration.requested", "migration.prepared", "migration.stopped", "migration.backed_up",
    "migration.provisioned", "migration.conf_rewritten", "migration.restored", "migration.started",
    "migration.completed",
)  # fmt: skip
CONF_KEYS: Final = ("db_host", "db_port", "db_user", "db_password")
PROGRESS: Final = """
    SELECT step, progress_done, progress_total FROM rehome.steps
    WHERE state = 'running' AND progress_total > 0
"""

_PARTS: Final = {
    "process": "RabbitMQ, PostgreSQL, database-service, two Odoo-like instances",
    "swarm": "RabbitMQ, a Docker Swarm, and as its services PostgreSQL, database-service, two Odoo-like instances",
}


class Demo:
    """One run of the demo."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.console = Console(
            stderr=args.json, highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH
        )
        self.story = Story()
        self.published_at = 0.0

    async def run(self) -> int:
        """Start, show, check; returns the exit code."""
        _end_in_order_on(signal.SIGTERM)
        directory = scratch_directory("rehome-demo")
        moving, staying = Tenant("acme"), Tenant("globex")
        try:
            async with AsyncExitStack() as stack:
                began = time.monotonic()
                self._say(f"starting {_PARTS[self.args.runtime]} ...")
                local = await self._platform(stack, directory, (moving, staying))
                site, other = await self._sites(local, moving, staying)
                self._say(f"the platform is up after {time.monotonic() - began:.1f} s; starting the consumer")
                await stack.enter_async_context(self._consumer(local))
                await self._show(local, site, other)
                self._report()
                if self.args.keep:
                    await self._keep(local, site, other)
        finally:
            remove_scratch_directory(directory)
        return 0 if self.story.ok else 1

    async def _platform(
        self, stack: AsyncExitStack, directory: Path, tenants: Sequence[Tenant]
    ) -> AnyPlatform:
        if self.args.runtime == "process":
            local = await stack.enter_async_context(local_platform(directory, tenants))
            local.prepare_for_warm_moves()
            return local
        engine, notice = await borrowed(os.environ.get("DOCKER_HOST"), directory)
        if notice:
            self._say(notice)
        if engine is not None:
            stack.push_async_callback(engine.destroy)
        return await stack.enter_async_context(swarm_platform(directory, tenants, engine=engine))

    async def _sites(self, local: AnyPlatform, *tenants: Tenant) -> list[Site]:
        sites = [await local.add_site(tenant) for tenant in tenants]
        await asyncio.gather(*(local.wait_until_serving(site) for site in sites))
        return sites

    @asynccontextmanager
    async def _consumer(self, local: AnyPlatform) -> AsyncIterator[None]:
        """The consumer as users run it, or one in which a step fails."""
        module = ("sandbox.demo.faults", self.args.fail) if self.args.fail else ("rehome_consumer", "run")
        async with local.consumer(module=module):
            yield

    async def _show(self, local: AnyPlatform, site: Site, other: Site) -> None:
        """Write to both instances, upgrade one, follow its events, and check."""
        subscriber = Subscriber(local.broker.url(), on_event=self._print_event)
        mine, theirs = Writers(site.url), Writers(other.url, prefix="other")
        async with subscriber, mine, theirs:
            await asyncio.gather(mine.wait_acknowledged(20), theirs.wait_acknowledged(20))
            self.story.before = await observe(local, site)
            billing = Billing(local.broker.url(), local.platform.instance_dsn, local.platform.billing_dsn)
            self._say(f"publishing plan.upgraded: {site.tenant.database} -> {PLAN}", "")
            self.published_at = time.monotonic()
            await billing.upgrade(site.id, PLAN)
            async with self._progress(local):
                last = await subscriber.wait_for(*ENDS, instance_id=site.id, limit=LIMIT_SECONDS)
            await asyncio.gather(mine.wait_acknowledged(20), theirs.wait_acknowledged(20))
        self.story.after = await observe(local, site)
        await self._check(local, site, other, subscriber, last, mine, theirs)

    def _print_event(self, event: CloudEvent[Any]) -> None:
        """A line per event, as another service receives it."""
        seconds = time.monotonic() - self.published_at
        self.story.events.append(
            {"type": event.type, "seconds": round(seconds, 3), "data": event.data.model_dump(mode="json")}
        )
        self.console.print(event_line(event, seconds), markup=False)

    async def _check(
        self,
        local: AnyPlatform,
        site: Site,
        other: Site,
        subscriber: Subscriber,
        last: CloudEvent[Any],
        mine: Writers,
        theirs: Writers,
    ) -> None:
        """Everything that must hold, from outside the consumer."""
        story = self.story
        before, after = story.before, story.after
        assert before is not None  # noqa: S101 - for the type checker
        assert after is not None  # noqa: S101 - for the type checker
        story.conf_diff = conf_diff(before.conf, after.conf)
        story.downtime_seconds = (
            last.data.downtime_seconds if hasattr(last.data, "downtime_seconds") else None
        )
        story.seconds = dict(getattr(last.data, "seconds", {}))
        story.customer_gap_seconds, story.other_gap_seconds = (
            mine.longest_gap_seconds,
            theirs.longest_gap_seconds,
        )
        story.writes, story.other_writes = len(mine.acknowledged), len(theirs.acknowledged)
        own = await mine.verify_writes(await database_dsn(local, site))
        others = await theirs.verify_writes(await database_dsn(local, other))
        types = subscriber.types(site.id)
        add = story.checks.append
        if self.args.fail:
            story.outcome = f"rolled back after step {self.args.fail} failed"
            restored = (before.record, before.conf, before.counts["postgres-pool-1"]) == (
                after.record, after.conf, after.counts["postgres-pool-1"],
            )  # fmt: skip
            add(Check("it was rolled back", last.type == "migration.rolled_back", last.type))
            add(Check("record, odoo.conf and the pool's count are as before", restored))
            add(Check("it runs on the pool", after.on_pool > 0, f"{after.on_pool} connections"))
            add(Check("nothing of it runs on a dedicated server", after.on_dedicated == 0))
        else:
            story.outcome = "moved"
            add(Check("the events came in their order", types == list(CHAIN), f"{len(types)} events"))
            add(Check("no connection is left on the pool", after.on_pool == 0, f"{before.on_pool} before"))
            add(
                Check(
                    "it is connected to the dedicated server", after.on_dedicated > 0, str(after.on_dedicated)
                )
            )
            add(Check("odoo.conf differs in the database's keys only", _only_keys(story.conf_diff)))
            add(Check("record says dedicated, and running", _is_upgraded(after.record)))
        add(
            Check(
                "database.uuid and users are the same",
                (before.uuid, before.users) == (after.uuid, after.users),
            )
        )
        add(Check("every acknowledged write is there once", own.ok, f"{own.acknowledged} writes"))
        add(Check("so is every write of the other tenant", others.ok, f"{others.acknowledged} writes"))
        add(
            Check(
                "the other tenant was undisturbed",
                theirs.failed == 0
                and len(theirs.boots) == 1
                and theirs.longest_gap_seconds < UNDISTURBED_SECONDS,
                f"longest gap {theirs.longest_gap_seconds:.2f} s, {theirs.failed} failed",
            )
        )
        secrets = (site.tenant.password, other.tenant.password, local.pool.password)
        log = (local.directory / "consumer.log").read_text(encoding="utf-8", errors="replace")
        published = orjson.dumps(story.events).decode()
        leaked = any(secret in published + log for secret in secrets)
        add(Check("no password in any event or log line", not leaked))

    def _report(self) -> None:
        if self.args.json:
            document = orjson.dumps(self.story.document(), default=str, option=orjson.OPT_INDENT_2)
            sys.stdout.write(visible_json(document.decode()) + "\n")
            sys.stdout.flush()
        else:
            self.story.show(self.console)

    async def _keep(self, local: AnyPlatform, site: Site, other: Site) -> None:
        """Leave everything running until a signal arrives, and print how to reach it."""
        env_file = local.directory / "env"
        env_file.touch(mode=0o600)
        env_file.write_text(
            "".join(f"export {name}={shlex.quote(value)}\n" for name, value in local.settings().items()),
            encoding="utf-8",
        )
        ended = self.story.outcome if self.story.ok else "not as it should be, see the checks"
        self._say(
            "",
            f"all of it stays up until Ctrl-C, or: kill {os.getpid()}",
            f"  settings for the command line   . {env_file}    then: rehome status --all, rehome dead list, ...",
            f"  instances                       {site.url} ({ended}: {site.id})",
            f"                                  {other.url} ({other.id})",
            f"  next upgrade                    rehome publish plan.upgraded --instance {other.id} --to-plan {PLAN}",
            f"  RabbitMQ                        127.0.0.1:{local.broker.port}, vhost migration",
            f"  PostgreSQL pool                 127.0.0.1:{local.pool.port}",
            f"  platform's databases            127.0.0.1:{local.platform.cluster.port}",
            f"  database-service                {local.database_service_url}",
            f"  logs                            {local.directory}/consumer.log",
        )
        await until_stopped()

    @asynccontextmanager
    async def _progress(self, local: AnyPlatform) -> AsyncIterator[None]:
        """A bar for long steps, on a terminal only."""
        if not self.console.is_terminal or self.args.json:
            yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            drawing = asyncio.create_task(_draw(bar, local.platform.instance_dsn))
            try:
                yield
            finally:
                drawing.cancel()
                with suppress(asyncio.CancelledError):
                    await drawing

    def _say(self, *lines: str) -> None:
        for line in lines:
            self.console.print(visible(line), markup=False)


def _end_in_order_on(number: signal.Signals) -> None:
    """Let a signal cancel the current task, as Ctrl-C does: what was made is removed."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - for the type checker
    asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def _draw(bar: Progress, dsn: str) -> None:
    """Follow the journal's progress; what cannot be read is not drawn."""
    task = bar.add_task("working", total=None)
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        while True:
            row = await connection.fetchrow(PROGRESS)
            if row is None:
                bar.update(task, description="working", total=None)
            else:
                bar.update(
                    task, description=row["step"], completed=row["progress_done"], total=row["progress_total"]
                )
            await asyncio.sleep(0.2)
    finally:
        await connection.close(timeout=5)


def _only_keys(diff: list[str]) -> bool:
    return bool(diff) and all(line[2:].partition("=")[0].strip() in CONF_KEYS for line in diff)


def _is_upgraded(record: dict[str, Any]) -> bool:
    return (
        record["db_type"] == "dedicated"
        and record["status"] == "running"
        and record["plan_tier"] == "premium"
        and record["error_message"] is None
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rehome demo",
        description="Start a small real platform on free ports (RabbitMQ, PostgreSQL servers, database-service, two "
        "Odoo-like instances with real Odoo 19 databases), write to both instances all the time, upgrade one, "
        "and check from outside that nothing was lost. Everything is removed at the end.",
    )
    parser.add_argument(
        "--runtime",
        choices=_PARTS,
        default="process",
        help="what runs the parts: processes, or a Docker Swarm: a private one (root, and scripts/setup-swarm), or "
        "the one at DOCKER_HOST where that is set and fits",
    )
    parser.add_argument("--keep", action="store_true", help="leave it up afterwards, and say how to reach it")
    parser.add_argument(
        "--fail", choices=FAILING, metavar="STEP", help=f"let a step fail: {', '.join(FAILING)}"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    return parser


def main() -> int:
    """The command line."""
    args = _parser().parse_args()
    try:
        return asyncio.run(Demo(args).run())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except (TimeoutError, OSError, RuntimeError, EngineMissingError) as error:
        print(visible(f"rehome demo: {error}"), file=sys.stderr)
        return 1
