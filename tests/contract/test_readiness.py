"""What the consumer looks at before it works: the same answers from the fakes and from real surroundings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from uuid import UUID, uuid4

import pytest

from rehome_consumer.adapters.backup.place import MARK, BackupPlace
from rehome_consumer.adapters.odoo.conf import OdooConfFiles
from rehome_consumer.adapters.platform.database_service import HttpDatabaseService
from rehome_consumer.adapters.postgres.copier import PgCopier
from rehome_consumer.adapters.rabbitmq.connection import connected
from rehome_consumer.adapters.rabbitmq.declaring import declare
from rehome_consumer.adapters.rabbitmq.queues import AmqpQueueInspector
from rehome_consumer.adapters.state.encryption import SecretCipher
from rehome_consumer.adapters.state.facts import MemoryFacts
from rehome_consumer.adapters.state.journal import PostgresJournal
from rehome_consumer.errors import NotReady, Unreachable
from rehome_consumer.facts import NEW_PASSWORD
from rehome_consumer.model import Instance, Secret
from rehome_consumer.process.checks import checks_of, require_topology
from rehome_consumer.rabbitmq.topology import definitions
from sandbox.platform.database_service import DatabaseService
from sandbox.supervisor.node import SupervisorNode
from sandbox.system.http import plain_http
from sandbox.system.net import LOOPBACK, free_port
from tests.contract.journals import KEY, postgres_journal, state_database
from tests.contract.runtime_stages import FakeStage, process_stage
from tests.fakes.broker import FakeBroker
from tests.fakes.clock import FakeClock
from tests.fakes.copier import FakeCopier
from tests.fakes.database_service import FakeDatabaseService
from tests.fakes.inspection import FakeQueueInspector
from tests.fakes.journal import FakeJournal
from tests.fakes.odoo_conf import FakeOdooConf
from tests.fakes.platform import FakePlatform
from tests.fakes.site import Site
from tests.fakes.world import World
from tests.support.events import body_of, migration_of, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aio_pika.abc import AbstractRobustConnection

    from rehome_consumer.ports.engine import Journal
    from rehome_consumer.ports.operators import QueueInspector
    from rehome_consumer.ports.steps import Copier, OdooConf
    from sandbox.postgres.server import Cluster
    from sandbox.rabbitmq.node import BrokerNode
    from tests.contract.platform_tables import PostgresTables

BOTH = pytest.mark.parametrize("kind", ["fake", "real"])
OTHER_KEY = "another key of more than sixteen characters"
ACME = Instance(UUID(int=0xACE << 100, version=4), UUID(int=1), "Acme", "running", "acme")
BRIE = Instance(UUID(int=0xB1E << 100, version=4), UUID(int=1), "Brie", "running", "../brie")


# the backup place and the client programs


class Place(Protocol):
    @property
    def copier(self) -> Copier: ...

    def unmount(self) -> None:
        """Leave an empty directory in its place."""
        ...

    def remove(self) -> None: ...


class FakePlace:
    def __init__(self) -> None:
        self.world = World()
        self.copier = FakeCopier(self.world)

    def unmount(self) -> None:
        self.world.mark = None

    def remove(self) -> None:
        self.world.free = None


class RealPlace:
    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.copier = PgCopier(BackupPlace(root))

    def unmount(self) -> None:
        (self.root / MARK).unlink()

    def remove(self) -> None:
        self.unmount()
        self.root.rmdir()


@pytest.fixture(params=["fake", "real"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return FakePlace() if request.param == "fake" else RealPlace(tmp_path / "place")


async def test_a_backup_place_has_one_mark(place: Place) -> None:
    mark = await place.copier.require_place(None)
    assert await place.copier.require_place(None) == mark
    assert await place.copier.require_place(mark) == mark


async def test_an_empty_directory_in_its_place_is_noticed(place: Place) -> None:
    mark = await place.copier.require_place(None)
    place.unmount()
    with pytest.raises(NotReady, match=r"has no file \.rehome-place"):
        await place.copier.require_place(mark)


async def test_another_place_is_noticed(place: Place) -> None:
    await place.copier.require_place(None)
    with pytest.raises(NotReady, match="is another one than the consumers have used"):
        await place.copier.require_place(uuid4())


async def test_a_place_that_is_gone_is_not_ready_and_no_backup_can_be_discarded(place: Place) -> None:
    mark = await place.copier.require_place(None)
    place.remove()
    with pytest.raises(NotReady):
        await place.copier.require_place(mark)
    with pytest.raises(NotReady):
        await place.copier.free_bytes()
    with pytest.raises(NotReady):
        await place.copier.discard(f"{uuid4()}-1")


@BOTH
async def test_missing_client_programs_are_no_fault_of_a_database(kind: str, tmp_path: Path) -> None:
    copier: Copier = FakeCopier(World(client=None))
    if kind == "real":
        copier = PgCopier(BackupPlace(tmp_path), tmp_path / "no-programs")
    with pytest.raises(NotReady, match=r"there is no .*pg_dump"):
        await copier.client_version()


@pytest.mark.parametrize("only_look", [False, True])
async def test_the_first_consumer_marks_the_place_and_one_with_another_place_is_not_ready(
    *, only_look: bool
) -> None:
    journal, ours, another = FakeJournal(FakeClock()), Site(FakeClock()), Site(FakeClock())
    another.world.mark = UUID(int=2, version=4)
    check = checks_of(ours.ports(MemoryFacts()), journal, only_look=only_look)["backup_place"]
    await check()
    assert (ours.world.mark is None, journal.place is None) == (only_look, only_look)
    if not only_look:
        await check()
        with pytest.raises(NotReady, match="is another one"):
            await checks_of(another.ports(MemoryFacts()), journal)["backup_place"]()


# the data root


@BOTH
async def test_a_data_root_without_any_instance_in_it_is_not_mounted(kind: str, tmp_path: Path) -> None:
    fake, conf = FakeOdooConf(tmp_path), OdooConfFiles(tmp_path)
    port: OdooConf = fake if kind == "fake" else conf
    await port.require_root([])
    with pytest.raises(NotReady, match=r"holds none of the directories of 2 instance\(s\)"):
        await port.require_root([BRIE, ACME])
    (tmp_path / ACME.directory).mkdir()
    fake.files[fake.path(ACME)] = b""
    await port.require_root([BRIE, ACME])


async def test_a_data_root_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"nowhere cannot be read: No such file.*REHOME_DATA_ROOT"):
        await OdooConfFiles(tmp_path / "nowhere").require_root([])


# database-service and what runs the instances


async def test_a_database_service_that_is_gone_is_unreachable_in_the_fake() -> None:
    service = FakeDatabaseService(FakePlatform())
    await service.require_ready()
    service.reachable = False
    with pytest.raises(Unreachable):
        await service.require_ready()


async def test_a_database_service_that_is_gone_is_unreachable_over_http(
    scratch: Path, real_tables: PostgresTables
) -> None:
    databases = real_tables.databases
    stand_in = DatabaseService(
        scratch / f"dedicated-{uuid4().hex[:8]}", databases.cluster.dsn(databases.instance_database)
    )
    port = free_port()
    async with plain_http(f"http://{LOOPBACK}:{port}") as client:
        service = HttpDatabaseService(client)
        async with stand_in.serving(port):
            await service.require_ready()  # it has no such page, and says so
        with pytest.raises(Unreachable, match="does not answer"):
            await service.require_ready()


async def test_the_runtime_is_ready_while_it_answers(tmp_path: Path) -> None:
    fake = FakeStage()
    await fake.runtime.require_ready()
    fake.runtime.reachable = False
    with pytest.raises(Unreachable):
        await fake.runtime.require_ready()
    node = SupervisorNode(tmp_path)
    await node.start()
    async with process_stage(node, tmp_path) as real:
        await real.runtime.require_ready()
        await node.kill()
        with pytest.raises(Unreachable):
            await real.runtime.require_ready()
    await node.close()


# the journal


async def with_a_secret(journal: Journal) -> None:
    """An open migration that remembers a password."""
    event = upgrade(uuid4())
    migration = await journal.open(migration_of(event), event.data.instance_id, event, body_of(event))
    row = await journal.begin(migration, "prepare", replay=None)
    await journal.facts(row).remember(NEW_PASSWORD, Secret("hunter2-hunter2"))


@BOTH
async def test_a_wrong_key_is_noticed_as_soon_as_an_open_migration_has_a_secret(
    kind: str, pg: Cluster
) -> None:
    if kind == "fake":
        fake = FakeJournal(FakeClock())
        fake.wrong_key = True
        await fake.require_key()
        await with_a_secret(fake)
        with pytest.raises(NotReady, match="REHOME_SECRET_KEY"):
            await fake.require_key()
        return
    async with state_database(pg) as dsn, postgres_journal(dsn) as journal:
        wrong = PostgresJournal(journal._pool, SecretCipher(OTHER_KEY))
        await wrong.require_key()
        await with_a_secret(journal)
        await journal.require_key()
        with pytest.raises(NotReady, match="is not the key with which the secrets of open migrations, such"):
            await wrong.require_key()
        # a single one that was altered is not taken for a wrong key
        await journal._pool.execute("UPDATE rehome.facts SET secret = 'x' || secret")
        await with_a_secret(journal)
        await journal.require_key()
        # and secrets of migrations that are over may be of an earlier key
        await journal._pool.execute("UPDATE rehome.migrations SET ended_at = now()")
        await PostgresJournal(journal._pool, SecretCipher(KEY[::-1])).require_key()


@BOTH
async def test_the_first_mark_of_the_backup_place_counts(kind: str, pg: Cluster) -> None:
    async def check(journal: Journal) -> None:
        first, second = uuid4(), uuid4()
        assert await journal.place_mark() is None
        assert await journal.place_mark(first) == first
        assert await journal.place_mark(second) == await journal.place_mark() == first

    if kind == "fake":
        await check(FakeJournal(FakeClock()))
        return
    async with state_database(pg) as dsn, postgres_journal(dsn) as journal:
        await check(journal)


# the broker


@pytest.fixture
async def connection(broker: BrokerNode) -> AsyncIterator[AbstractRobustConnection]:
    async with connected(broker.url(), name="readiness") as made:
        yield made


@BOTH
async def test_missing_queues_and_exchanges_are_named(
    kind: str, connection: AbstractRobustConnection
) -> None:
    node = FakeBroker()
    inspector: QueueInspector = FakeQueueInspector(node) if kind == "fake" else AmqpQueueInspector(connection)
    await require_topology(inspector)
    if kind == "fake":
        del node.queues["migration.h.start"]
        node.remove_exchange("migration.dead")
    else:
        async with connection.channel() as channel:
            await channel.queue_delete("migration.h.start")
            await channel.exchange_delete("migration.dead")
    try:
        with pytest.raises(
            NotReady,
            match=r"no queue migration\.h\.start, no exchange migration\.dead: rehome topology apply",
        ):
            await require_topology(inspector)
        with pytest.raises(Unreachable, match="is lost"):
            await require_topology(inspector, connected=False)
    finally:
        if kind == "real":
            await declare(connection, definitions())
