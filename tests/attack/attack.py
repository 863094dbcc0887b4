"""One hostile tenant, from its creation to the findings: each thing that it gained, or that was lost, is a sentence."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sandbox.platform.local import ODOO_CONF
from sandbox.postgres.databases import drop_database, quoted
from sandbox.postgres.tenants import Tenant, create_tiny_tenant
from sandbox.system.net import wait_until
from tests.attack.canary import Canary, Report
from tests.attack.census import Census, census, changes
from tests.attack.contents import contents
from tests.chaos.arena import PLAN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.demo.chaos import Order
    from sandbox.platform.local import Site
    from sandbox.postgres.server import Cluster
    from tests.attack.place import Place

COMPLETED: Final = "migration.completed"
ROLLED_BACK: Final = "migration.rolled_back"
STATE_SCHEMA: Final = "rights and things of rehome in instance"
"""The consumer's own schema: the first consumer that is started creates it."""
END_SECONDS: Final = 180.0


@dataclass
class Attack:
    """Used in this order: `begin`, `ends`, and then `findings` must be empty.

    Attributes:
        place: the platform.
        outcome: the type of the event that ended the move.
    """

    place: Place
    outcome: str = ""
    _site: Site | None = None
    _canary: Canary | None = None
    _neighbour: Tenant | None = None
    _contents: dict[str, dict[str, str]] = field(default_factory=dict)
    _census: dict[str, Census] = field(default_factory=dict)

    @property
    def site(self) -> Site:
        """The hostile tenant's instance."""
        assert self._site is not None
        return self._site

    @property
    def tenant(self) -> Tenant:
        """The hostile tenant."""
        return self.site.tenant

    @property
    def canary(self) -> Canary:
        """Its canary."""
        assert self._canary is not None
        return self._canary

    @property
    def neighbour(self) -> Tenant:
        """Another tenant of the pool, which has nothing to do with the attack."""
        assert self._neighbour is not None
        return self._neighbour

    @property
    def pool(self) -> Cluster:
        """The shared server."""
        return self.place.local.pool

    async def make(self, *scripts: str) -> None:
        """Create the tenant with these files of hostile objects, its instance, and its neighbour."""
        self._site = await self.place.make_site()
        self._canary = Canary(f"c{secrets.token_hex(6)}", self.tenant.role, self.place.marks)
        await self.as_tenant(*(self.canary.script(name) for name in ("canary", *scripts)))
        self._neighbour = Tenant(f"n{secrets.token_hex(4)}")
        await create_tiny_tenant(self.pool, self.neighbour)
        await self.remember()

    async def remember(self) -> None:
        """Record contents, roles and rights as they are before the move."""
        await self.remember_data()
        self._census = {name: await census(cluster) for name, cluster in self._shared().items()}

    async def remember_data(self) -> None:
        """Record the contents as they are now."""
        for tenant in (self.tenant, self.neighbour):
            self._contents[tenant.database] = await contents(self.pool, tenant.database)

    async def as_tenant(self, *statements: str) -> None:
        """Run these statements as the tenant, in its database on the pool."""
        async with self.pool.connect(
            self.tenant.database, user=self.tenant.role, password=self.tenant.password
        ) as connection:
            for statement in statements:
                await connection.execute(statement)

    async def begin(
        self, *scripts: str, order: Order | None = None, fail: Sequence[str] = (), **settings: str
    ) -> None:
        """Create what does not exist yet, start a consumer under this order, and publish the upgrade."""
        if self._site is None:
            await self.make(*scripts)
        self.place.orders.give(order, fail=fail)
        await self.place.start_consumer(**{f"REHOME_{name}": value for name, value in settings.items()})
        await self.place.billing.upgrade(self.site.id, PLAN)

    async def there(self) -> bool:
        """Wait until the order was obeyed, or the move ended; whether it was obeyed."""
        ended = (COMPLETED, ROLLED_BACK, "migration.rejected")

        async def either() -> bool:
            return self.place.orders.obeyed or bool(set(ended) & set(self.types()))

        await wait_until(either, what="the consumer to get there", limit=END_SECONDS, pause=0.01)
        return self.place.orders.obeyed

    def types(self) -> list[str]:
        """Types of the tenant's events so far."""
        return self.place.subscriber.types(self.site.id)

    async def ends(self) -> str:
        """Wait until the move ended and nothing runs any more; the type of the last event."""
        self.place.orders.release()
        try:
            last = await self.place.subscriber.wait_for(
                COMPLETED, ROLLED_BACK, "migration.rejected", instance_id=self.site.id, limit=END_SECONDS
            )
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {await self.history()}") from None
        await self.place.wait_until_quiet()
        self.outcome = last.type
        return last.type

    async def history(self) -> str:
        """The latest entries of the journal's history."""
        async with self.place.platform() as platform:
            rows = await platform.fetch(
                "SELECT what, detail FROM rehome.history h JOIN rehome.migrations m ON m.id = migration_id "
                "WHERE instance_id = $1 ORDER BY seq DESC LIMIT 3",
                self.site.id,
            )
        return "; ".join(f"{row['what']}: {row['detail']}" for row in rows)

    @property
    def migration(self) -> str:
        """The id of the tenant's migration."""
        events = (event for event in self.place.subscriber.events if event.subject == str(self.site.id))
        return str(next(event.migrationid for event in events if event.migrationid is not None))

    def write_conf(self, **values: str) -> None:
        """Let the tenant write other values into its odoo.conf: `user`, `password`, `database`."""
        tenant, pool = self.tenant, self.pool
        given = {"user": tenant.role, "password": tenant.password, "database": tenant.database, **values}
        self.site.conf.write_text(ODOO_CONF.format(host=pool.host, port=pool.port, **given), encoding="utf-8")

    def refusal(self) -> str:
        """What the `migration.failed` or `migration.rejected` of the move says."""
        events = (event for event in self.place.subscriber.events if event.subject == str(self.site.id))
        found = [event.data for event in events if event.type in ("migration.failed", "migration.rejected")]
        return f"{getattr(found[0], 'step', 'accept')}: {found[0].message}" if found else "nothing failed"

    def reports(self, server: str = "") -> list[Report]:
        """What the canary reported on the servers whose names begin with this."""
        logs = self.place.logs()
        return [one for name in logs if name.startswith(server) for one in self.canary.reports(logs[name])]

    async def holds(self, *, own_data: bool = True, but: tuple[str, ...] = ()) -> None:
        """Require that the tenant gained nothing, and that nothing was lost or left behind.

        Args:
            own_data: also compare the tenant's own tables.
            but: lines of the shared servers' census that contain one of these words are left out.
        """
        found = await self.findings(own_data=own_data, but=but)
        assert not found, "\n".join(("", *found))

    async def findings(self, *, own_data: bool = True, but: tuple[str, ...] = ()) -> list[str]:
        """What the tenant gained, and what was lost or left behind."""
        found = []
        for name, log in self.place.logs().items():
            bad = {
                (one.site, one.session, one.current): one for one in self.canary.reports(log) if one.powers
            }
            found += [f"canary with power on {name}: {one}" for one in bad.values()]
        found += [f"mark left: {name}" for name in self.canary.left()]
        found += await self._changed_roles(but)
        found += await self._changed_data(own_data=own_data)
        return found

    async def _changed_roles(self, but: tuple[str, ...]) -> list[str]:
        """A rollback leaves no trace; a completed move leaves the fence, and nothing else."""
        own: tuple[str, ...] = ()
        if self.outcome == COMPLETED:
            role, database = self.tenant.role, self.tenant.database
            own = (f": role {role} ", f": database {database} ", f": rights and things of {role} in")
        found = []
        for name, cluster in self._shared().items():
            now = await census(cluster)
            found += [
                f"on {name}: {line}"
                for line in changes(self._census[name], now, but=(*own, *but, STATE_SCHEMA))
            ]
        dedicated = await self.dedicated()
        if dedicated is not None:
            known = {"postgres", self.tenant.role}
            async with dedicated.connect() as connection:
                roles = await connection.fetch(
                    "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls,"
                    " EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid OR roleid = r.oid AND member <> 10)"
                    " FROM pg_roles r WHERE rolname !~ '^pg_'"
                )
            for role, more, member in roles:
                if role not in known:
                    found.append(f"on the dedicated server: role {role} is left")
                elif role == self.tenant.role and (more or member):
                    found.append("on the dedicated server: the tenant's role has attributes or memberships")
        return found

    async def _changed_data(self, *, own_data: bool) -> list[str]:
        """The neighbour has the data it had, and so has the tenant, on its present server."""
        found = []
        home = self.pool
        if self.outcome == COMPLETED:
            dedicated = await self.dedicated()
            assert dedicated is not None
            home = dedicated
        for tenant, cluster in ((self.neighbour, self.pool), (self.tenant, home)):
            async with cluster.connect(tenant.database, user=tenant.role, password=tenant.password) as one:
                await one.fetchval("SELECT 1")
            if tenant is self.tenant and not own_data:
                continue
            now, before = await contents(cluster, tenant.database), self._contents[tenant.database]
            different = sorted(name for name in before if before[name] != now.get(name))
            found += [f"data of {tenant.database} differ in {name!r}" for name in different]
        await self.place.local.wait_until_serving(self.site)
        return found

    async def dedicated(self) -> Cluster | None:
        """The server that was created for the tenant, while it exists."""
        row = await self.place.dedicated(self.site)
        return self.place.local.database_service.cluster(row["id"]) if row else None

    def _shared(self) -> dict[str, Cluster]:
        return {
            "the pool": self.pool,
            "the state database's server": self.place.local.platform.cluster,
        }

    async def close(self, more: Sequence[Site] = ()) -> None:
        """Remove the tenants."""
        self.place.orders.release()
        await self.place.stop_consumers()
        for site in (*more, *([self._site] if self._site else ())):
            await _drop_owned(self.pool, site.tenant.role)
            await self.place.remove_site(site)
        if self._neighbour is not None:
            await drop_database(self.pool, self._neighbour.database)
            async with self.pool.connect() as pool:
                await pool.execute(f"DROP ROLE IF EXISTS {quoted(self._neighbour.role)}")
        for mark in self.place.marks.iterdir():
            await asyncio.to_thread(mark.unlink)


async def _drop_owned(pool: Cluster, role: str) -> None:
    """Drop what the role owns or was granted outside of its database, so that it can be dropped."""
    async with pool.connect() as connection:
        if await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
            await connection.execute(f"DROP OWNED BY {quoted(role)}")
