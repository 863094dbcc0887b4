"""`rehome topology users`: prints, creates and compares the broker's users on real nodes; no password leaks."""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aio_pika
import pytest
import yaml

from rehome_events.client.connection import ClosedIfUnopened
from sandbox.rabbitmq.node import BrokerNode
from sandbox.system.net import LOOPBACK, free_port, give_back_port
from sandbox.system.processes import run
from tests.support.broker_users import NASTY, environment, password, rehome, write_users
from tests.support.command_line import ROOT, Answer
from tests.support.managed_broker import VHOST, ManagedBroker, managed_broker

NAMES = ("operator", "crm")
OWN_OF_CRM = r"^sub_crm\. ^sub_crm\. ^(sub_crm\..*|migration)$"
FEW = """
others = ["guest"]
user = [
    { name = "operator", role = "operator", password_file = "operator_password" },
    { name = "crm", role = "subscriber", keys = ["migration.completed"], password_env = "CRM_PASSWORD" },
]
"""


@pytest.fixture(scope="module")
async def managed(scratch: Path) -> AsyncIterator[ManagedBroker]:
    definitions = ROOT / "rabbitmq" / "definitions.json"
    async with managed_broker(scratch / "users", definitions=definitions) as made:
        yield made


@pytest.fixture
def node(managed: ManagedBroker) -> BrokerNode:
    return managed.node


@pytest.fixture
def api(managed: ManagedBroker) -> str:
    return managed.api


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return write_users(tmp_path, FEW)


@pytest.fixture(params=["rabbitmqctl", "management"])
def way(request: pytest.FixtureRequest, node: BrokerNode, api: str) -> Callable[..., list[str]]:
    """The options for the node, for each of the two ways to reach it."""
    if request.param == "management":
        return lambda: ["--management-url", api]
    return lambda: ["--rabbitmqctl", shlex.join(node.rabbitmqctl_command)]


@pytest.fixture(autouse=True)
async def _no_users_yet(managed: ManagedBroker) -> None:
    for name in NAMES:
        await managed.call("DELETE", "users", name)


async def topology_users(node: BrokerNode, users: Path, *arguments: str, **passwords: str) -> Answer:
    settings = {"REHOME_AMQP_URL": node.url(), **passwords}
    return await rehome("topology", "users", users, *arguments, settings=settings)


async def may_log_in(node: BrokerNode, user: str, secret: str) -> bool:
    try:
        connection = await aio_pika.connect(
            node.url(user, password=secret), timeout=10, connection_class=ClosedIfUnopened
        )
    except aio_pika.exceptions.ProbableAuthenticationError:
        return False
    await connection.close()
    return True


async def test_users_are_created_once_and_are_then_correct(
    node: BrokerNode, users: Path, way: Callable[[], list[str]]
) -> None:
    before = await topology_users(node, users, "--check", *way())
    assert (before.code, before.out.splitlines()[0]) == (1, "user operator is missing")

    made = await topology_users(node, users, "--apply", *way())
    assert (made.code, made.err) == (0, "")
    assert "changed: user crm is missing" in made.out
    assert all([await may_log_in(node, name, password(name)) for name in NAMES])

    for what in ("--check", "--apply"):
        again = await topology_users(node, users, what, *way())
        assert again == (0, "the users of the file have the permissions of their roles\n", "")


async def test_manual_changes_are_reported_and_corrected(
    managed: ManagedBroker, users: Path, way: Callable[[], list[str]]
) -> None:
    node = managed.node
    await topology_users(node, users, "--apply", "--management-url", managed.api)
    await managed.call(
        "PUT", "permissions", "migration", "crm", body={"configure": ".*", "write": ".*", "read": ".*"}
    )
    await managed.call("DELETE", "topic-permissions", "migration", "crm")
    await managed.call("PUT", "users", "operator", body={"tags": "administrator", "password": "another"})

    answer = await topology_users(node, users, "--check", *way())
    assert answer.code == 1
    assert answer.out.splitlines() == [
        "user operator has another password",
        "user operator has tags: administrator; wanted none",
        "user crm: routing keys on exchange migration (write, read) are not set, wanted ^$ ^migration\\.completed$",
        f"user crm: permissions (configure, write, read) are .* .* .*, wanted {OWN_OF_CRM}",
    ]

    corrected = await topology_users(node, users, "--apply", *way())
    assert corrected.code == 0
    assert (await topology_users(node, users, "--check", *way())).code == 0
    assert await may_log_in(node, "operator", password("operator"))
    assert not await may_log_in(node, "operator", "another")


async def test_a_new_password_counts_at_the_next_login_and_closes_no_connection(
    node: BrokerNode, users: Path, way: Callable[[], list[str]]
) -> None:
    await topology_users(node, users, "--apply", *way())
    connection = await aio_pika.connect(
        node.url("crm", password=password("crm")), timeout=10, connection_class=ClosedIfUnopened
    )
    async with connection:
        changed = await topology_users(node, users, "--apply", *way(), CRM_PASSWORD="another one")
        assert changed.out == "changed: user crm has another password\n"
        await (await connection.channel()).declare_queue("sub_crm.rotation", exclusive=True)
    assert not await may_log_in(node, "crm", password("crm"))
    assert await may_log_in(node, "crm", "another one")


async def test_an_unknown_user_is_reported_and_left(node: BrokerNode, api: str, tmp_path: Path) -> None:
    users = write_users(tmp_path, FEW.replace('others = ["guest"]', ""))
    done = await topology_users(node, users, "--apply", "--management-url", api)
    assert (done.code, "user guest has access to virtual host migration" in done.out) == (0, True)

    answer = await topology_users(node, users, "--check", "--management-url", api, "--json")
    assert (answer.code, json.loads(answer.out)["unknown_users"]) == (1, ["guest"])
    assert await may_log_in(node, "guest", "guest")


@pytest.mark.long
async def test_the_printed_script_creates_the_users_and_may_be_run_again(
    node: BrokerNode, api: str, users: Path, tmp_path: Path
) -> None:
    command = shlex.join(node.rabbitmqctl_command)
    printed = await topology_users(node, users, "--print", "--rabbitmqctl", command)
    assert (printed.code, printed.err) == (0, "")
    assert NASTY not in printed.out
    script = tmp_path / "users.sh"
    script.write_text(printed.out)

    inherited = {"PATH": "/usr/bin:/bin", **environment()}
    for _ in range(2):
        await run(["sh", script], limit=120, env=inherited)

    assert (await topology_users(node, users, "--check", "--management-url", api)).code == 0
    assert all([await may_log_in(node, name, password(name)) for name in NAMES])


async def test_the_printed_script_stops_before_it_changes_anything_without_a_password(
    node: BrokerNode, users: Path, tmp_path: Path
) -> None:
    printed = await topology_users(
        node, users, "--print", "--rabbitmqctl", shlex.join(node.rabbitmqctl_command)
    )
    (tmp_path / "users.sh").write_text(printed.out)
    (tmp_path / "operator_password").write_text("")

    with pytest.raises(Exception, match="operator_password is missing or empty"):
        await run(["sh", tmp_path / "users.sh"], limit=60, env={"PATH": "/usr/bin:/bin", **environment()})

    assert "crm" not in await node.rabbitmqctl("list_users")


async def test_no_password_is_an_argument_of_a_process(node: BrokerNode, users: Path, tmp_path: Path) -> None:
    """Every call of rabbitmqctl passes a script that writes down its arguments."""
    calls = tmp_path / "calls"
    spy = tmp_path / "spy"
    spy.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >> {calls}\nexec {shlex.join(node.rabbitmqctl_command)} "$@"\n'
    )
    spy.chmod(0o755)

    done = await topology_users(node, users, "--apply", "--rabbitmqctl", str(spy))

    assert done.code == 0
    written = await asyncio.to_thread(calls.read_text)
    assert "add_user crm" in written
    for text in (written, done.out, done.err, node.log.read_text()):
        assert NASTY not in text


@pytest.mark.parametrize("what", ["--apply", "--print"])
async def test_options_behind_rabbitmqctl_are_refused_before_it_waits_for_a_password(
    node: BrokerNode, users: Path, what: str
) -> None:
    command = "docker exec -i rabbitmq rabbitmqctl --node rabbit@host"
    answer = await topology_users(node, users, what, "--rabbitmqctl", command)
    assert (answer.code, answer.out) == (2, "")
    assert "rabbitmqctl must be the last word" in answer.err
    assert "env RABBITMQ_NODENAME=rabbit@host rabbitmqctl" in answer.err


async def test_users_before_the_topology_are_refused(managed: ManagedBroker, users: Path) -> None:
    """RabbitMQ 4.3 itself refuses permissions for an exchange that is not there."""
    before = await managed.call("GET", "users")
    await managed.call("DELETE", "exchanges", VHOST, "migration")
    try:
        answer = await topology_users(managed.node, users, "--apply", "--management-url", managed.api)
    finally:
        applied = await rehome("topology", "apply", settings={"REHOME_AMQP_URL": managed.node.url()})
    assert applied.code == 0
    assert (answer.code, answer.out) == (1, "")
    assert "the broker has no exchange migration in virtual host migration; nothing was changed" in answer.err
    assert "rehome topology apply" in answer.err
    assert await managed.call("GET", "users") == before


async def test_composes_script_makes_its_user(managed: ManagedBroker) -> None:
    """The script of service rabbitmq-users, on this machine's RabbitMQ."""
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["rabbitmq-users"]
    command = [part.replace("$$", "$") for part in service["command"]]
    node = managed.node
    variables = dict(part.split("=", 1) for part in node.rabbitmqctl_command[2:-1])
    programs = str(Path(node.rabbitmqctl_command[-1]).parent)
    for _ in range(2):
        await run(
            command,
            limit=120,
            env={**service["environment"], **variables, "PATH": f"{programs}:{variables['PATH']}"},
        )

    assert await may_log_in(node, "rehome", service["environment"]["PASSWORD"])
    await managed.call("DELETE", "users", "rehome")


async def test_a_login_without_the_administrator_tag_is_reported(
    node: BrokerNode, users: Path, api: str
) -> None:
    await topology_users(node, users, "--apply", "--management-url", api)
    settings = {"REHOME_AMQP_URL": node.url("crm", password=password("crm"))}
    answer = await rehome("topology", "users", users, "--check", "--management-url", api, settings=settings)

    assert answer.code == 1
    assert "the login of REHOME_AMQP_URL is wrong, or has no tag `administrator`" in answer.err


async def test_a_login_in_the_address_of_the_api_is_refused(node: BrokerNode, users: Path) -> None:
    answer = await topology_users(
        node, users, "--check", "--management-url", "http://guest:hidden@127.0.0.1:1"
    )

    assert answer.code == 2
    assert "--management-url holds a login" in answer.err
    assert "hidden" not in answer.err


async def test_a_node_that_does_not_answer_is_reported(node: BrokerNode, users: Path) -> None:
    port = free_port()
    answer = await topology_users(node, users, "--check", "--management-url", f"http://{LOOPBACK}:{port}")
    give_back_port(port)
    assert (answer.code, f"management API at http://{LOOPBACK}:{port}: " in answer.err) == (1, True)

    command = [part.replace("NODENAME=users@", "NODENAME=nobody@") for part in node.rabbitmqctl_command]
    answer = await topology_users(node, users, "--check", "--rabbitmqctl", shlex.join(command))
    assert (answer.code, "rabbitmqctl export_definitions ended with exit code 69" in answer.err) == (1, True)


async def test_a_missing_program_and_a_missing_password_are_reported(node: BrokerNode, users: Path) -> None:
    answer = await topology_users(node, users, "--check", "--rabbitmqctl", "no-such-rabbitmqctl")
    assert answer == (2, "", "rehome: --rabbitmqctl: no-such-rabbitmqctl: there is no such program\n")

    answer = await topology_users(node, users, "--apply", CRM_PASSWORD="")
    assert answer.code == 2
    assert "password of user crm (environment variable CRM_PASSWORD) is missing or empty" in answer.err
