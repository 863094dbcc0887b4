"""Faults of database-service: a move gets one server, or changes nothing and says why."""

import httpx
import pytest

from sandbox.platform.database_service import Switches
from sandbox.system.http import plain_http
from tests.chaos.moving import Move, hold

ALWAYS = 1000


@pytest.mark.parametrize("status", [pytest.param(400, marks=pytest.mark.representative), 422, 500, 503])
async def test_the_error_of_a_service_that_always_refuses_is_quoted_and_the_instance_never_stopped(
    status: int, move: Move
) -> None:
    service = move.arena.local.database_service
    service.switches = Switches(fail_times=ALWAYS, fail_status=status)
    await move.begin()
    message = await move.failure()
    assert f"{status}" in message
    assert "failing on purpose" in message
    await move.must_end("migration.rolled_back")
    assert "migration.stopped" not in move.arena.subscriber.types(move.site.id)


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        pytest.param(Switches(fail_times=2, fail_status=503), "503", id="recovers"),
        pytest.param(
            Switches(hang_seconds=ALWAYS),
            "no answer in 30 s",
            id="succeeds, but never answers",
            marks=pytest.mark.representative,
        ),
        pytest.param(
            Switches(delay_seconds=33), "no answer in 30 s", id="begins when the consumer waits no longer"
        ),
        pytest.param(Switches(garbage=True), "prepare waits", id="succeeds, and answers garbage"),
    ],
)
async def test_a_faulty_service_delays_a_move_that_gets_one_server(
    switches: Switches, words: str, move: Move
) -> None:
    move.arena.local.database_service.switches = switches
    await move.begin(PROVISION_TIMEOUT="30")
    await move.until_recorded("prepare waits: ")
    await move.must_end("migration.completed")
    assert words in await move.history()


async def test_a_request_that_the_service_gets_twice_makes_one_server(move: Move) -> None:
    local = move.arena.local
    await move.begin(order=hold("prepare.database_service.provision.checked"))
    await move.until_reached()
    request = {
        "instance_id": str(move.site.id),
        "customer_id": str(move.site.customer),
        "plan_tier": "premium",
    }
    async with plain_http(local.database_service_url) as http:
        made = await http.post("/api/database/provision-dedicated", json=request, timeout=60)
    assert made.status_code == httpx.codes.OK
    move.release()
    last = await move.must_end("migration.completed")
    assert str(last.data.target.id) == made.json()["db_server_id"]
    assert "prepare waits: " in await move.history()  # the second was refused: the name exists
