"""The Odoo-like instance on Odoo 19's real tables, and the clients that write to it."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from sandbox.odoo.writers import Writers
from sandbox.postgres.server import Cluster
from sandbox.system.net import wait_until
from tests.conftest import OdooTenantFactory
from tests.support.odoo import LIMIT, OdooInstance


@pytest.fixture
async def instance(
    tmp_path: Path, odoo_pool: Cluster, odoo_tenant: OdooTenantFactory
) -> AsyncIterator[OdooInstance]:
    instance = OdooInstance(tmp_path, odoo_pool, await odoo_tenant())
    instance.write_conf()
    yield instance
    await instance.close()


async def test_it_serves_what_odoo_serves_and_keeps_three_connections(instance: OdooInstance) -> None:
    await instance.start()
    health = await instance.http.get("/web/health")
    assert (health.status_code, health.json()) == (200, {"status": "pass"})
    assert (await instance.http.get("/web/login")).status_code == 200
    assert await instance.connections() == sorted(["postgres", *2 * [instance.tenant.database]])


async def test_it_reports_the_facts_that_a_move_must_not_change(instance: OdooInstance) -> None:
    await instance.start()
    facts = (await instance.http.get("/facts")).json()
    assert facts["users"] == 6
    assert facts["partners"] >= 42
    assert facts["database_uuid"] == instance.tenant.uuid
    assert (facts["db_host"], facts["db_port"]) == (instance.pool.host, instance.pool.port)
    assert (facts["db_name"], facts["db_user"]) == (instance.tenant.database, instance.tenant.role)


async def test_a_partner_is_committed_when_its_creation_is_answered(instance: OdooInstance) -> None:
    process = await instance.start()
    answer = await instance.http.post("/partners", json={"name": "Azure's café", "token": "t-1"})
    await process.kill()
    assert answer.status_code == 201
    async with instance.pool.connect(instance.tenant.database) as connection:
        row = await connection.fetchrow("SELECT id, name, autopost_bills FROM res_partner WHERE ref = 't-1'")
    assert answer.json() == {"id": row and row["id"], "token": "t-1"}
    assert row is not None
    assert (row["name"], row["autopost_bills"]) == ("Azure's café", "ask")


async def test_partners_are_counted_by_the_start_of_their_name(instance: OdooInstance) -> None:
    await instance.start()
    for name in ("100%_a", "100%_b", "100 c"):
        await instance.http.post("/partners", json={"name": name, "token": name})
    answer = await instance.http.get("/partners", params={"prefix": "100%_"})
    assert answer.json() == {"count": 2}


@pytest.mark.parametrize(
    "body", [{"name": "no token"}, {"name": 7, "token": "t"}, {"name": "", "token": "t"}]
)
async def test_a_partner_without_name_or_token_is_a_bad_request(
    instance: OdooInstance, body: dict[str, object]
) -> None:
    await instance.start()
    assert (await instance.http.post("/partners", json=body)).status_code == 400


async def test_every_answer_identifies_the_process_that_gave_it(instance: OdooInstance) -> None:
    first = await instance.start()
    ids = {(await instance.http.get(path)).headers["X-Boot-Id"] for path in ("/web/health", "/nowhere")}
    await first.stop()
    await instance.start()
    ids.add((await instance.http.get("/web/login")).headers["X-Boot-Id"])
    assert len(ids) == 2
    assert any(boot.startswith(f"{first.pid}-") for boot in ids)


async def test_the_environment_does_not_override_odoo_conf(instance: OdooInstance) -> None:
    await instance.start(ODOO_DATABASE_HOST="203.0.113.1", ODOO_DATABASE_PORT_NUMBER="1")
    assert (await instance.http.get("/facts")).json()["db_port"] == instance.pool.port


async def test_a_first_boot_writes_odoo_conf_from_the_environment(instance: OdooInstance) -> None:
    instance.conf.unlink()
    await instance.start(
        ODOO_SKIP_BOOTSTRAP="no",
        ODOO_DATABASE_HOST=instance.pool.host,
        ODOO_DATABASE_PORT_NUMBER=str(instance.pool.port),
        ODOO_DATABASE_NAME=instance.tenant.database,
        ODOO_DATABASE_USER=instance.tenant.role,
        ODOO_DATABASE_PASSWORD=instance.tenant.password,
    )
    assert (await instance.http.get("/web/health")).status_code == 200
    assert "[options]" in instance.conf.read_text()


async def test_without_odoo_conf_it_exits_with_255_and_prints_why(instance: OdooInstance) -> None:
    instance.conf.unlink()
    code, output = await instance.ends()
    assert code == 255
    assert f"cannot read {instance.conf}: No such file or directory" in output


@pytest.mark.parametrize("text", ["db_host = h\n", "[options]\ndb_host = h\n", "[options]\nhunter2\n"])
async def test_an_unusable_odoo_conf_ends_it_without_printing_its_lines(
    instance: OdooInstance, text: str
) -> None:
    instance.conf.write_text(text)
    code, output = await instance.ends()
    assert code == 255
    assert str(instance.conf) in output
    assert "hunter2" not in output


async def test_without_its_database_it_exits_with_1_and_prints_the_servers_words(
    instance: OdooInstance,
) -> None:
    instance.write_conf(password="wrong password")
    code, output = await instance.ends()
    assert code == 1
    assert (
        f"cannot connect to {instance.tenant.database} on {instance.pool.host}:{instance.pool.port} "
        f"as {instance.tenant.role} after 3 tries" in output
    )
    assert f'password authentication failed for user "{instance.tenant.role}"' in output
    assert "wrong password" not in output


async def test_a_lost_database_is_unhealthy_and_comes_back_by_itself(instance: OdooInstance) -> None:
    await instance.start()
    async with instance.pool.connect() as connection:
        await connection.execute(f"ALTER ROLE {instance.tenant.role} NOLOGIN")
        await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1",
            instance.tenant.role,
        )
    await instance.wait_connections(0)
    assert (await instance.http.get("/web/health")).status_code == 503
    assert (await instance.http.get("/web/login")).status_code == 500
    async with instance.pool.connect() as connection:
        await connection.execute(f"ALTER ROLE {instance.tenant.role} LOGIN")

    async def healthy() -> bool:
        return (await instance.http.get("/web/health")).status_code == 200

    await wait_until(healthy, what="the instance to be healthy again", limit=LIMIT)
    await wait_until(lambda: _holds(instance, "postgres"), what="the bus to listen again", limit=LIMIT)


async def _holds(instance: OdooInstance, database: str) -> bool:
    return database in await instance.connections()


async def test_sigterm_lets_a_running_request_finish_and_closes_the_connections(
    instance: OdooInstance,
) -> None:
    process = await instance.start()
    async with instance.pool.connect(instance.tenant.database) as blocker:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE res_partner IN ACCESS EXCLUSIVE MODE")
            request = asyncio.create_task(
                instance.http.post("/partners", json={"name": "in flight", "token": "in-flight"})
            )
            await wait_until(lambda: _waits_for_lock(instance), what="the request to wait", limit=LIMIT)
            process.send(signal.SIGTERM)

            async def noticed() -> bool:
                return "finishing running requests" in process.tail()

            await wait_until(noticed, what="the instance to notice SIGTERM", limit=LIMIT)
        assert (await request).status_code == 201
    assert await asyncio.wait_for(process.process.wait(), LIMIT) == 0
    assert await instance.connections() == []


async def _waits_for_lock(instance: OdooInstance) -> bool:
    async with instance.pool.connect() as connection:
        waiting = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'",
            instance.tenant.role,
        )
    return bool(waiting)


async def test_two_processes_can_serve_one_port_for_a_moment(instance: OdooInstance) -> None:
    first = await instance.start()
    second = await instance.start()
    await first.stop()
    boot = (await instance.http.get("/web/health")).headers["X-Boot-Id"]
    assert boot.startswith(f"{second.pid}-")


async def test_switched_to_exit_it_exits_with_the_asked_code(instance: OdooInstance) -> None:
    code, _ = await instance.ends(ODOO_FAULT_EXIT_AFTER="0.1", ODOO_FAULT_EXIT_CODE="3")
    assert code == 3


async def test_switched_to_be_never_healthy_it_serves_only_503(instance: OdooInstance) -> None:
    await instance.start(ODOO_FAULT_NEVER_HEALTHY="1")
    answers = [(await instance.http.get(path)).status_code for path in ("/web/health", "/web/login")]
    assert answers == [503, 503]


@pytest.mark.parametrize("ignored", [True, False])
async def test_sigterm_is_ignored_only_where_that_is_switched_on(
    instance: OdooInstance, ignored: bool
) -> None:
    process = await instance.start(**({"ODOO_FAULT_IGNORE_SIGTERM": "1"} if ignored else {}))
    assert ignores(signal.SIGTERM, process.pid) == ignored


def ignores(number: signal.Signals, pid: int) -> bool:
    """Whether a process ignores a signal (proc(5), the mask SigIgn)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigIgn:"))
    return bool(mask & (1 << (number - 1)))


async def test_switched_to_start_slowly_it_connects_late(instance: OdooInstance) -> None:
    process = await instance.launch(ODOO_FAULT_SLOW_START="600")

    async def printed() -> bool:
        return "starting slowly" in process.tail()

    await wait_until(printed, what="the instance to print that it starts slowly", limit=LIMIT)
    with pytest.raises(httpx.ConnectError):
        await instance.http.get("/web/health")
    assert process.alive
    assert await instance.connections() == []


async def test_writers_survive_downtime_and_every_confirmed_write_is_there_once(
    instance: OdooInstance,
) -> None:
    async with Writers(instance.url, clients=2, pause=0) as writers:
        first = await instance.start()
        await writers.wait_acknowledged(20)
        await first.kill()
        await instance.start()
        await writers.wait_acknowledged(20)
    check = await writers.verify_writes(instance.tenant.dsn(instance.pool))
    assert check.ok
    assert check.acknowledged == len(writers.acknowledged) >= 40
    assert len(writers.boots) == 2
    assert writers.failed > 0
    assert writers.longest_gap_seconds > 0


async def test_a_lost_and_a_repeated_write_are_found(instance: OdooInstance) -> None:
    await instance.start()
    async with Writers(instance.url) as writers:
        await writers.wait_acknowledged(3)
    lost, repeated = writers.acknowledged[:2]
    async with instance.pool.connect(instance.tenant.database) as connection:
        await connection.execute("DELETE FROM res_partner WHERE ref = $1", lost)
        await connection.execute(
            "INSERT INTO res_partner (name, type, autopost_bills, ref) VALUES ('x', 'contact', 'ask', $1)",
            repeated,
        )
    check = await writers.verify_writes(instance.tenant.dsn(instance.pool))
    assert not check.ok
    assert (check.missing, check.repeated) == ((lost,), (repeated,))
