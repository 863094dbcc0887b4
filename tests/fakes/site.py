"""A whole platform in memory: records, servers, services, odoo.conf, and customers who write.

Made of the other fakes, tied together as the real parts are: an instance is healthy when it can log in where
its odoo.conf says, and holds a session there; database-service's servers really are there.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rehome_consumer.adapters.platform.rows import as_instance, as_server
from rehome_consumer.errors import Unreachable
from rehome_consumer.model import Policy
from rehome_consumer.ports.steps import Ports
from tests.fakes.copier import FakeCopier
from tests.fakes.database_service import FakeDatabaseService
from tests.fakes.databases import FakeDatabases
from tests.fakes.filestore import FakeFilestore
from tests.fakes.odoo_conf import FakeOdooConf, read
from tests.fakes.platform import FakePlatform
from tests.fakes.replicator import FakeReplicator
from tests.fakes.runtime import LABEL, Behaviour, FakeRuntime
from tests.fakes.verifier import FakeVerifier
from tests.fakes.world import ADMIN, SHORT_LIVED, FakeDatabase, FakeRole, FakeServer, LoginRefusedError, World

if TYPE_CHECKING:
    from rehome_consumer.model import Instance, Server
    from rehome_consumer.ports.steps import Clock, Facts
    from tests.fakes.runtime import FakeService, FakeTask
    from tests.fakes.world import FakeSession

NO_CONF, NO_DATABASE, OK = 255, 500, 200
ORDERS = "public.sale_order"
ORDERS_SEQUENCE = "public.sale_order_id_seq"
PASSWORD = "p%'$; #=ß"


@dataclass
class Process:
    """An instance's running task: what its odoo.conf said when it started, and its session."""

    address: tuple[str, int]
    user: str
    password: str
    database: str
    session: FakeSession | None = None


class SiteDatabaseService(FakeDatabaseService):
    """database-service whose servers are in the world, too."""

    def __init__(self, platform: FakePlatform, world: World) -> None:
        super().__init__(platform)
        self.world = world
        self.postgres_version = "15"
        self.server_version = 150018

    async def provision(self, instance_id: UUID, customer_id: UUID, plan_tier: str) -> Any:
        try:
            return await super().provision(instance_id, customer_id, plan_tier)
        finally:
            for row in self.platform.servers.values():
                self.world.servers.setdefault(
                    (row["host"], row["port"]), new_server(row["admin_password"], self.server_version)
                )

    async def give_back(self, server_id: UUID) -> bool:
        row = self.platform.servers.get(server_id)
        given = await super().give_back(server_id)
        if given and row:
            self.world.servers.pop((row["host"], row["port"]))
        return given


def new_server(password: str, version: int = 150018) -> FakeServer:
    """An empty PostgreSQL server."""
    made = FakeServer(version=version)
    made.roles[ADMIN] = FakeRole(ADMIN, password, superuser=True)
    made.databases["postgres"] = FakeDatabase("postgres", ADMIN)
    return made


class Site:
    """The platform.

    Attributes:
        pool: the shared server that tenants start on.
        confirmed: rows that were confirmed as saved to customers, by instance.
    """

    def __init__(self, clock: Clock, policy: Policy | None = None, pool: str = "postgres-pool-1") -> None:
        self.clock = clock
        self.policy = policy or Policy()
        self.world = World(pause=self.paused)
        self.platform = FakePlatform()
        self.runtime = FakeRuntime(clock.now)
        self.runtime.behave = self._behave
        self.runtime.answers = self._answers
        self.odoo_conf = FakeOdooConf()
        self.database_service = SiteDatabaseService(self.platform, self.world)
        self.databases = FakeDatabases(self.world)
        self.replicator = FakeReplicator(self.world)
        self.copier = FakeCopier(self.world)
        self.verifier = FakeVerifier(self.world)
        self.filestore = FakeFilestore()
        self.pool = self.world.add_server(pool, "shared")
        self.platform.add_server(id=self.pool.id, name=self.pool.name, current_instances=0)
        self.confirmed: dict[UUID, list[int]] = {}
        self.refused: list[str] = []
        self._instances: dict[str, UUID] = {}
        self._processes: dict[str, Process] = {}

    def ports(self, facts: Facts) -> Ports:
        """Everything that steps may touch."""
        return Ports(
            policy=self.policy,
            clock=self.clock,
            facts=facts,
            platform=self.platform,
            database_service=self.database_service,
            databases=self.databases,
            replicator=self.replicator,
            copier=self.copier,
            verifier=self.verifier,
            odoo_conf=self.odoo_conf,
            runtime=self.runtime,
            filestore=self.filestore,
        )

    def add_tenant(self, name: str = "acme", *, replicas: int = 1, **columns: Any) -> UUID:
        """An instance on the pool that serves (or is stopped, with no replica)."""
        role, there = f"odoo_{name}", self.world.at(self.pool)
        there.roles[role] = FakeRole(role, PASSWORD)
        there.databases[name] = FakeDatabase(
            name,
            role,
            tables={ORDERS: [], "public.res_partner": [(1, "Asustek"), (2, "Agrolait")]},
            sequences={"public.res_partner_id_seq": "2 true", ORDERS_SEQUENCE: "1 false"},
            identities={ORDERS: "d"},
            objects={"index": {"res_partner_pkey": "(id)"}, "owner": {"table public.res_partner": role}},
        )
        instance = self.platform.add_instance(
            **{
                "id": UUID(int=(len(self.platform.instances) + 1 << 96) + 1, version=4),
                "database_name": name,
                "db_server_id": self.pool.id,
                "db_host": self.pool.host,
                "db_user": role,
                "db_type": "shared",
                "cpu_limit": 2.0,
                "memory_limit": "4G",
                "storage_limit": "20G",
                "service_name": f"odoo-{name}",
                "status": "running" if replicas else "stopped",
                **columns,
            }
        )
        self.platform.servers[self.pool.id]["current_instances"] += 1
        row = self.instance(instance)
        self.odoo_conf.files[self.odoo_conf.path(row)] = (
            "; kept as it is\n[options]\n"
            f"db_host = {self.pool.host}\ndb_port = 5432\ndb_user = {role}\ndb_password = {PASSWORD}\n"
            "db_name = False\nadmin_passwd = x\n"
        ).encode()
        self._instances[row.service] = instance
        self.confirmed[instance] = []
        self.runtime.add(
            row.service,
            labels={LABEL: str(instance), "traefik.enable": "true"},
            env={"ODOO_SKIP_BOOTSTRAP": "yes", "ODOO_DATABASE_HOST": self.pool.host},
            limits={"cpu": 2.0, "memory": "4G"},
            replicas=replicas,
        )
        self.reconcile()
        return instance

    def add_dedicated(self, instance_id: UUID) -> UUID:
        """A server that was made for this instance before it is requested."""
        row = self.platform.instances[instance_id]
        made = self.platform.add_server(
            name=f"postgres-dedicated-{instance_id.hex[:8]}",
            server_type="dedicated",
            max_instances=1,
            dedicated_to_customer_id=row["customer_id"],
            dedicated_to_instance_id=instance_id,
        )
        server = self.platform.servers[made]
        self.world.servers[server["host"], server["port"]] = new_server(
            server["admin_password"], self.database_service.server_version
        )
        return made

    def instance(self, identity: UUID) -> Instance:
        """Its row, as the platform port reads it."""
        return as_instance(self.platform.instances[identity])

    def reconcile(self) -> None:
        """Running tasks have a session where they could log in; ended tasks have none."""
        self.runtime.reap()
        for service in self.runtime.services.values():
            for task in service.tasks:
                process = self._processes.get(task.id)
                if process is None:
                    continue
                there = self.world.servers.get(process.address)
                if task.exit_code is not None or there is None:
                    if (
                        process.session is not None
                        and there is not None
                        and process.session in there.sessions
                    ):
                        there.sessions.remove(process.session)
                    self._processes.pop(task.id)
                elif process.session is None or process.session not in there.sessions:
                    process.session = self._log_in(process)

    def write(self, identity: UUID, number: int) -> bool:
        """A customer saves an order in the running instance; True when it is confirmed."""
        self.reconcile()
        for task in self.runtime.services[self.platform.instances[identity]["service_name"]].running:
            process = self._processes.get(task.id)
            if process is None or process.session is None:
                continue
            session = process.session
            there = self.world.servers[process.address]
            if session not in there.sessions:
                continue
            if session.database.publications and session.database.identities.get(ORDERS, "f") != "f":
                self.refused.append(f"{ORDERS} is published, and has no replica identity")
                return False  # an order is updated, too
            session.database.tables.setdefault(ORDERS, []).append((number,))
            session.database.sequences[ORDERS_SEQUENCE] = f"{number} true"
            self.confirmed[identity].append(number)
            return True
        return False

    def writable(self, identity: UUID) -> list[str]:
        """Servers on which others than an administrator can write to a database of this tenant's name."""
        name = self.platform.instances[identity]["database_name"]
        found = []
        for (host, _), there in self.world.servers.items():
            database = there.databases.get(name)
            if database is None:
                continue
            inside = any(
                one.database is database and one.user != ADMIN and not SHORT_LIVED.fullmatch(one.user)
                for one in there.sessions
            )
            role = there.roles.get(f"odoo_{name}") or there.roles[database.owner]
            if inside or (role.can_login and not database.closed and database.connection_limit != 0):
                found.append(host)
        return found

    def writers(self, identity: UUID) -> list[str]:
        """Tasks of the instance that are logged in to a database.

        One that another service starts beside one that ends does not count on the pool before the fence: there nobody
        keeps it out, and both write to the one database that there is.
        """
        name = self.platform.instances[identity]["service_name"]
        found = []
        for task in self.runtime.services[name].running:
            process = self._processes.get(task.id)
            there = self.world.servers.get(process.address) if process else None
            if process is None or there is None or process.session not in there.sessions:
                continue
            unfenced = there is self.world.at(self.pool) and not process.session.database.closed
            if not (task.foreign and unfenced):
                found.append(task.id)
        return found

    def ending(self, identity: UUID) -> list[str]:
        """Tasks of the instance that were asked to end, and run on."""
        name = self.platform.instances[identity]["service_name"]
        return [task.id for task in self.runtime.services[name].running if task.asked is not None]

    def orders(self, identity: UUID) -> dict[str, list[int]]:
        """Orders in the tenant's database, by server."""
        name = self.platform.instances[identity]["database_name"]
        return {
            host: [row[0] for row in there.databases[name].tables[ORDERS]]
            for (host, _), there in self.world.servers.items()
            if name in there.databases
        }

    def snapshot(self, identity: UUID) -> dict[str, Any]:
        """All that a rollback must restore, comparable."""
        self.reconcile()
        row = self.platform.instances[identity]
        name = row["database_name"]
        there = self.world.at(self.pool)
        source = there.databases[name]
        service = self.runtime.services[self.instance(identity).service]
        return copy.deepcopy(
            {
                "record": {key: value for key, value in row.items() if key != "updated_at"},
                "servers": {
                    str(key): {k: v for k, v in one.items() if k != "updated_at"}
                    for key, one in self.platform.servers.items()
                },
                "files": dict(self.odoo_conf.files),
                "service": {key: value for key, value in service.spec.items() if key != "force"},
                "running": len(service.staying),
                "source": (
                    source.tables,
                    source.sequences,
                    source.objects,
                    source.connection_limit,
                    source.identities,
                ),
                "login": there.roles[f"odoo_{name}"].can_login,
                "owner": (source.owner, source.closed),
                "roles": sorted(there.roles),
                "reached": sorted(self.world.servers),
                "writable": self.writable(identity),
                "backups": sorted(self.world.backups),
                "databases": {host: sorted(one.databases) for (host, _), one in self.world.servers.items()},
            }
        )

    async def paused(self, at: str) -> None:
        """The world's pause: sessions are as they would be by now."""
        self.reconcile()

    def _behave(self, service: FakeService) -> Behaviour:
        """Odoo at its start: it reads odoo.conf, and ends if there is none."""
        identity = self._instances[service.name]
        path = self.odoo_conf.path(self.instance(identity))
        if path not in self.odoo_conf.files:
            return Behaviour(exit_code=NO_CONF, said=("odoo.conf is not there",))
        options = read(self.odoo_conf.files[path], str(path))
        process = Process(
            (str(options["db_host"]), int(str(options["db_port"]))),
            str(options["db_user"]),
            str(options["db_password"]),
            str(self.platform.instances[identity]["database_name"]),
        )
        self._processes[f"{service.id}-task-{len(service.tasks) + 1}"] = process
        return Behaviour()

    def _answers(self, task: FakeTask) -> int:
        """Odoo asks its database at every request: it serves as soon as it may log in."""
        self.reconcile()
        process = self._processes.get(task.id)
        return OK if process is not None and process.session is not None else NO_DATABASE

    def _log_in(self, process: Process) -> FakeSession | None:
        server = next((one for one in self._known() if (one.host, one.port) == process.address), None)
        if server is None:
            return None
        try:
            return self.world.log_in(server, process.user, process.password, process.database)
        except (LoginRefusedError, Unreachable):
            return None

    def _known(self) -> list[Server]:
        return [as_server(row) for row in self.platform.servers.values()]
