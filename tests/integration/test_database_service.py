"""The sandbox's database-service: answers as in production, real servers, and faults on demand."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from sandbox.platform.database_service import DatabaseService, Switches
from sandbox.platform.tables import Platform
from sandbox.postgres.server import programs
from sandbox.system.http import plain_http
from sandbox.system.net import free_port

PROVISION = "/api/database/provision-dedicated"


class Caller:
    """A running service and a client for it."""

    def __init__(self, service: DatabaseService, http: httpx.AsyncClient, platform: Platform) -> None:
        self.service = service
        self.http = http
        self.platform = platform

    async def ask(self, **changes: Any) -> httpx.Response:
        body = {"instance_id": str(uuid4()), "customer_id": str(uuid4()), "plan_tier": "premium"}
        return await self.http.post(PROVISION, json={**body, **changes})

    async def row(self, server_id: str) -> asyncpg.Record | None:
        async with self.platform.cluster.connect(self.platform.instance_database) as connection:
            return await connection.fetchrow("SELECT * FROM db_servers WHERE id = $1", UUID(server_id))

    async def rows(self, instance_id: str) -> list[asyncpg.Record]:
        async with self.platform.cluster.connect(self.platform.instance_database) as connection:
            return await connection.fetch(
                "SELECT * FROM db_servers WHERE dedicated_to_instance_id = $1", UUID(instance_id)
            )


@pytest.fixture
async def caller(platform: Platform, scratch: Path) -> AsyncIterator[Caller]:
    directory = scratch / "dedicated"
    service = DatabaseService(directory, platform.cluster.dsn(platform.instance_database))
    async with service.serving(free_port()) as url, plain_http(url, timeout=60) as http:
        yield Caller(service, http, platform)
    assert list(directory.iterdir()) == []


async def connects(row: asyncpg.Record, *, user: str | None = None, password: str | None = None) -> str:
    connection = await asyncpg.connect(
        host=row["host"],
        port=row["port"],
        user=user or row["admin_user"],
        password=password or row["admin_password"],
        database="postgres",
        timeout=10,
    )
    try:
        return str(await connection.fetchval("SELECT current_user"))
    finally:
        await connection.close()


async def test_a_dedicated_server_is_made_registered_and_answered_as_in_production(caller: Caller) -> None:
    instance_id, customer_id = str(uuid4()), str(uuid4())
    answer = await caller.ask(instance_id=instance_id, customer_id=customer_id)
    assert answer.status_code == 200
    body = answer.json()
    row = await caller.row(body["db_server_id"])
    assert row is not None
    assert body == {
        "status": "provisioned",
        "db_server_id": str(row["id"]),
        "db_host": row["host"],
        "message": "Dedicated database server provisioned successfully",
    }
    assert row["name"] == f"postgres-dedicated-{instance_id[:8]}"
    assert (row["status"], row["health_status"], row["server_type"]) == ("active", "healthy", "dedicated")
    assert (row["current_instances"], row["max_instances"]) == (0, 1)
    assert str(row["dedicated_to_instance_id"]) == instance_id
    assert str(row["dedicated_to_customer_id"]) == customer_id
    assert row["postgres_version"] == programs().parent.name
    assert await connects(row) == "postgres"


async def test_port_and_a_working_login_are_in_the_answer_where_switched_on(caller: Caller) -> None:
    caller.service.switches = Switches(give_port=True, give_login=True)
    body = (await caller.ask()).json()
    row = await caller.row(body["db_server_id"])
    assert row is not None
    assert body["db_port"] == row["port"]
    assert await connects(row, user=body["db_user"], password=body["db_password"]) == body["db_user"]


async def test_a_second_call_for_one_instance_violates_the_unique_name(caller: Caller) -> None:
    instance_id = str(uuid4())
    assert (await caller.ask(instance_id=instance_id)).status_code == 200
    again = await caller.ask(instance_id=instance_id)
    assert again.status_code == 500
    assert "duplicate key value violates unique constraint" in again.json()["detail"]
    assert len(await caller.rows(instance_id)) == 1


async def test_a_plan_without_a_dedicated_database_is_a_bad_request(caller: Caller) -> None:
    answer = await caller.ask(plan_tier="standard")
    assert answer.status_code == 400
    assert answer.json() == {"detail": "Plan 'standard' does not support dedicated database"}


async def test_a_missing_field_is_unprocessable(caller: Caller) -> None:
    answer = await caller.http.post(PROVISION, json={"plan_tier": "premium", "customer_id": str(uuid4())})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["instance_id"]


async def test_a_server_can_be_given_back_once(caller: Caller) -> None:
    body = (await caller.ask()).json()
    row = await caller.row(body["db_server_id"])
    assert row is not None
    url = f"/api/database/servers/{body['db_server_id']}"
    assert (await caller.http.delete(url)).status_code == 204
    assert await caller.row(body["db_server_id"]) is None
    with pytest.raises(ConnectionRefusedError):
        await connects(row)
    assert (await caller.http.delete(url)).status_code == 404


async def test_an_unknown_server_cannot_be_given_back(caller: Caller) -> None:
    assert (await caller.http.delete("/api/database/servers/not-an-id")).status_code == 404


async def test_switched_to_fail_it_fails_so_often_without_doing_anything(caller: Caller) -> None:
    assert (await caller.http.put("/switches", json={"fail_times": 2, "fail_status": 503})).status_code == 200
    instance_id = str(uuid4())
    answers = [(await caller.ask(instance_id=instance_id)).status_code for _ in range(2)]
    assert answers == [503, 503]
    assert await caller.rows(instance_id) == []
    assert (await caller.ask(instance_id=instance_id)).status_code == 200
    assert caller.service.calls == 3


async def test_switched_to_hang_it_succeeds_without_an_answer(caller: Caller) -> None:
    caller.service.switches = Switches(hang_seconds=600)
    instance_id = str(uuid4())
    call = asyncio.create_task(caller.ask(instance_id=instance_id))
    async with asyncio.timeout(30):
        while [row["status"] for row in await caller.rows(instance_id)] != ["active"]:
            assert not call.done()
    call.cancel()
    (row,) = await caller.rows(instance_id)
    assert await connects(row) == "postgres"


async def test_switched_to_garbage_it_succeeds_and_answers_no_json(caller: Caller) -> None:
    caller.service.switches = Switches(garbage=True)
    instance_id = str(uuid4())
    answer = await caller.ask(instance_id=instance_id)
    assert (answer.status_code, answer.text) == (200, "<html>Bad gateway</html>")
    assert [row["status"] for row in await caller.rows(instance_id)] == ["active"]


async def test_an_unknown_switch_is_refused(caller: Caller) -> None:
    assert (await caller.http.put("/switches", json={"fail_tiems": 2})).status_code == 422
