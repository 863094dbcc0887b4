"""Port `DatabaseService`, held by the fake and, over HTTP, by the sandbox's service alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from uuid import UUID, uuid4

import pytest

from rehome_consumer.adapters.platform.database_service import HttpDatabaseService
from rehome_consumer.errors import Refused, TimedOut, Transient
from sandbox.platform.database_service import DatabaseService, Switches
from sandbox.system.http import plain_http
from sandbox.system.net import free_port, wait_until
from tests.contract.platform_tables import FakeTables, PostgresTables
from tests.fakes.database_service import FakeDatabaseService, Mood

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from rehome_consumer.model import Provisioned, Server
    from rehome_consumer.ports import steps

SWITCHES: dict[Mood, Switches] = {
    "fails": Switches(fail_times=1),
    "answers garbage": Switches(garbage=True),
    "answers too late": Switches(),
}


class World(Protocol):
    """A service, and the table in which its servers appear."""

    @property
    def service(self) -> steps.DatabaseService: ...

    @property
    def platform(self) -> steps.Platform: ...

    def next_call(self, mood: Mood) -> None: ...

    def give_login(self) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self.platform = FakeTables().platform
        self.service = FakeDatabaseService(self.platform)

    def next_call(self, mood: Mood) -> None:
        self.service.moods = [mood]

    def give_login(self) -> None:
        self.service.gives_login = True


class RealWorld:
    def __init__(self, tables: PostgresTables, stand_in: DatabaseService, client: httpx.AsyncClient) -> None:
        self.platform = tables.platform
        self.service = HttpDatabaseService(client, limit=60)
        self._impatient = HttpDatabaseService(client, limit=0.1)
        self._stand_in = stand_in

    def next_call(self, mood: Mood) -> None:
        self._stand_in.switches = SWITCHES[mood]
        if mood == "answers too late":
            self.service = self._impatient

    def give_login(self) -> None:
        self._stand_in.switches = Switches(give_port=True, give_login=True)


@pytest.fixture(params=["fake", "http"])
async def world(
    request: pytest.FixtureRequest, scratch: Path, real_tables: PostgresTables
) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    databases = real_tables.databases
    directory = scratch / f"dedicated-{uuid4().hex[:8]}"
    stand_in = DatabaseService(directory, databases.cluster.dsn(databases.instance_database))
    async with (
        stand_in.serving(free_port()) as url,
        plain_http(url) as client,
    ):
        yield RealWorld(real_tables, stand_in, client)


async def provision(world: World, instance: UUID, tier: str = "premium") -> Provisioned:
    return await world.service.provision(instance, uuid4(), tier)


async def server_of(world: World, instance: UUID) -> Server:
    """The instance's dedicated server, once it is there: a late one comes up by itself."""
    found: list[Server] = []

    async def there() -> bool:
        server = await world.platform.dedicated_server(instance)
        found.extend([server] if server else [])
        return bool(found)

    await wait_until(there, what="the dedicated server", limit=30)
    return found[0]


async def test_a_server_asked_for_is_there_and_active_when_the_answer_comes(world: World) -> None:
    instance = uuid4()
    answer = await provision(world, instance)
    server = await world.platform.dedicated_server(instance)
    assert server
    assert (server.id, server.host, server.status) == (answer.db_server_id, answer.host, "active")
    assert (answer.port, answer.user, answer.password) == (None, None, None)


async def test_an_answer_may_hold_port_and_login(world: World) -> None:
    world.give_login()
    instance = uuid4()
    answer = await provision(world, instance)
    assert answer.port == (await server_of(world, instance)).port
    assert answer.user
    assert answer.password
    assert answer.password.reveal() not in repr(answer)


async def test_a_second_call_for_an_instance_is_a_passing_error(world: World) -> None:
    instance = uuid4()
    await provision(world, instance)
    with pytest.raises(Transient, match="HTTP 500"):
        await provision(world, instance)


async def test_a_plan_without_a_dedicated_database_is_refused_with_the_services_words(world: World) -> None:
    with pytest.raises(Refused, match="Plan 'basic' does not support dedicated database"):
        await provision(world, uuid4(), "basic")


async def test_a_failure_makes_nothing_and_may_pass(world: World) -> None:
    instance = uuid4()
    world.next_call("fails")
    with pytest.raises(Transient, match="HTTP 500, failing on purpose"):
        await provision(world, instance)
    await provision(world, instance)


async def test_the_error_for_a_late_answer_says_that_the_server_may_exist_and_it_does(world: World) -> None:
    instance = uuid4()
    world.next_call("answers too late")
    with pytest.raises(TimedOut, match="may have made the server all the same"):
        await provision(world, instance)
    assert (await server_of(world, instance)).dedicated_to_instance_id == instance


async def test_the_error_for_garbage_says_that_the_server_may_exist_and_it_does(world: World) -> None:
    instance = uuid4()
    world.next_call("answers garbage")
    with pytest.raises(Transient, match=r"not JSON.*may have made the server all the same"):
        await provision(world, instance)
    assert (await server_of(world, instance)).dedicated_to_instance_id == instance


async def test_a_server_given_back_is_removed_and_cannot_be_given_back_again(world: World) -> None:
    answer = await provision(world, uuid4())
    assert await world.service.give_back(answer.db_server_id)
    assert await world.platform.server(answer.db_server_id) is None
    assert not await world.service.give_back(answer.db_server_id)
