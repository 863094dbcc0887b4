"""Checks of what other services answer over HTTP, and of the state that Docker's engine and RabbitMQ report."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import UUID

from rehome_consumer.adapters.common import http_status
from rehome_consumer.adapters.platform.database_service import HttpDatabaseService
from rehome_consumer.adapters.swarm import answers, fitting, resizing, versions
from rehome_consumer.adapters.swarm import spec as edit
from rehome_consumer.adapters.swarm.diagnosis import Diagnosis, ending, is_exhausted
from rehome_consumer.adapters.swarm.engine import Engine
from rehome_consumer.adapters.swarm.nodes import admits
from rehome_consumer.adapters.swarm.services import Services as SwarmServices
from rehome_consumer.errors import RehomeError
from rehome_consumer.model import Instance
from rehome_consumer.network.hosts import resolver
from rehome_consumer.rabbitmq import comparison, topology
from rehome_consumer.rabbitmq.access import Access, changes, unknown_users
from rehome_consumer.rabbitmq.permissions import User
from rehome_consumer.settings import read_settings
from rehome_events.parts import Limits
from sandbox.supervisor.client import Services
from tests.fuzz.common import answering, as_json, finished, lines_and_rest, refused

if TYPE_CHECKING:
    from collections.abc import Iterable

INSTANCE = Instance(
    id=UUID("7d9f2a54-3c1b-4e8a-9a70-5b1d2c3e4f60"),
    customer_id=UUID(int=7),
    name="acme",
    status="running",
    database_name="acme",
)
LIMITS = Limits(cpu_limit=4.0, memory_limit="8G", storage_limit="50G")


def database_service(data: bytes) -> None:
    """Status and body: a server, or a documented error without a password in it."""
    (status,), body = lines_and_rest(data, 1)
    code = int(status) if status in {"200", "201", "204", "301", "400", "404", "422", "500", "503"} else 200

    async def ask() -> None:
        async with answering(code, body) as client:
            service = HttpDatabaseService(client, limit=30)
            try:
                made = await service.provision(INSTANCE.id, INSTANCE.customer_id, "premium")
            except RehomeError as error:
                _require_no_secret(str(error), body)
                raise
            assert made.host
            assert made.port is None or 0 < made.port < 65536
            await service.give_back(made.db_server_id)

    refused(lambda: finished(ask()))


def _require_no_secret(text: str, body: bytes) -> None:
    answer = as_json(body)
    secret = answer.get("db_password") if isinstance(answer, dict) else None
    if isinstance(secret, str) and len(secret) >= 8:
        assert secret not in text


def supervisor(data: bytes) -> None:
    """Status and body: services whose every method works, or a documented error."""
    (status,), body = lines_and_rest(data, 1)
    code = int(status) if status in {"200", "400", "404", "409", "500"} else 200

    async def ask() -> None:
        async with answering(code, body) as client:
            services = Services(client)
            for service in await services.by_label("saasodoo.instance.id", "x"):
                _look_at_process(services, service)

    async def ask_for_one() -> None:
        async with answering(code, body) as client:
            services = Services(client)
            service = await services.by_name("odoo-acme")
            if service is not None:
                _look_at_process(services, service)
                await services.update(service, service.spec)
                await services.failure(service, ("/web/health",))

    refused(lambda: finished(ask()))
    refused(lambda: finished(ask_for_one()))


def _look_at_process(services: Services, service: Any) -> None:
    assert isinstance(service.name, str)
    assert service.stop_grace_seconds >= 0
    service.as_service()
    service.running(), service.sole_current_task(), service.unasked_ends(set()), service.describe(set())
    for task in service.tasks:
        service.healthy(task, services.url(service), datetime.now(UTC))


class _Docker:
    """An engine that answers every request with one value."""

    api_version = "auto"

    def __init__(self, value: Any) -> None:
        self._value = value

    async def _query_json(self, path: str, **_: Any) -> Any:
        return {"ApiVersion": "1.41"} if path == "version" else self._value


def docker(data: bytes) -> None:
    """The engine's answer to any request: values whose every method works, or a documented error."""
    answer = as_json(data)
    engine = Engine(_Docker(answer), patience=0)  # type: ignore[arg-type] # as far as requests go

    async def ask() -> None:
        service = await engine.service(answer["Spec"]["Name"] if _is_named(answer) else "odoo-acme-7d9f2a54")
        if service is not None:
            await engine.update(service, service.spec)
            _look_at_definition(service.spec)

    refused(lambda: finished(ask()))
    refused(lambda: finished(SwarmServices(engine).find(INSTANCE)))

    async def ask_for_tasks() -> None:
        (service,) = await Engine(_Docker([SERVICE]), patience=0).services(label=["a=b"])  # type: ignore[arg-type]
        diagnosis = Diagnosis(service.name, service.spec, (), room_limit=30.0)
        tasks = await engine.tasks(service)
        for task in tasks:
            task.describe(), ending(task), task.as_task(), task.wanted, task.serving, task.ended_unasked
            assert all(isinstance(address, str) for address in task.addresses)
        is_exhausted(service.spec, tasks)
        diagnosis.observe(tasks)
        diagnosis.describe()
        await SwarmServices(engine).running(service)

    refused(lambda: finished(ask_for_tasks()))


def docker_nodes(data: bytes) -> None:
    """The engine's answer to a question for its version or its nodes: values to judge by, or a documented error."""
    answer = as_json(data)
    refused(lambda: versions.agreed(answer))

    async def ask() -> None:
        (service,) = await Engine(_Docker([SERVICE]), patience=0).services(label=["a=b"])  # type: ignore[arg-type]
        found = await Engine(_Docker(answer), patience=0).nodes()  # type: ignore[arg-type]
        wanted = edit.with_limits(service.spec, LIMITS)
        for node in found:
            node.describe(), admits(wanted, node)
        if found:
            fitting.warnings(service.name, wanted, fitting.able(service.name, wanted, found))

    refused(lambda: finished(ask()))


def _is_named(answer: Any) -> bool:
    return (
        isinstance(answer, dict)
        and isinstance(answer.get("Spec"), dict)
        and isinstance(answer["Spec"].get("Name"), str)
    )


def _look_at_definition(spec: Any) -> None:
    edit.replicas_of(spec)
    stopped = edit.with_replicas(spec, 0)
    assert edit.replicas_of(stopped) == 0
    env = edit.env_of(edit.with_env(spec, {"ODOO_DATABASE_HOST": "a=b"}))
    assert env["ODOO_DATABASE_HOST"] == "a=b"
    edit.limits_of(spec), edit.external_url(spec), edit.has_health_check(spec), edit.host_ports(spec)
    assert 0 < edit.http_port(spec, 8069) < 65536
    assert edit.stop_grace_seconds(spec) >= 0
    assert edit.limits_of(edit.with_limits(spec, LIMITS)).memory_limit == "8G"
    edit.max_per_node(spec), edit.amounts_of(spec, "Reservations")
    edit.forced(spec)
    edit.restored(spec, spec)
    started = resizing.started(spec, LIMITS)
    if resizing.is_started(started):
        resizing.finished(started)
        resizing.undone(started)


def task_log(data: bytes) -> None:
    """The log of a task, in pieces: text, never more than came."""
    assert len(answers.log_text(data)) <= len(data)


def definitions(data: bytes) -> None:
    """A broker's definitions: lines that say what differs."""
    found = comparison.differences(topology.definitions(), as_json(data))
    assert all(isinstance(line, str) for line in found)


def access(data: bytes) -> None:
    """A broker's definitions again: what a user lacks, or Refused; no password in it."""
    user = User("crm", "subscriber", ("migration.completed",), password_env="CRM")

    def read() -> None:
        there = Access.of(as_json(data))
        reasons = [change.why for change in changes(user, "a-secret-password", there)]
        assert all("a-secret-password" not in line for line in reasons)
        assert all(isinstance(name, str) for name in unknown_users((user,), (), there))

    refused(read)


def health(data: bytes) -> None:
    """An instance's answer to a health check: healthy at 200, else a short reason."""
    (status,), body = lines_and_rest(data, 1)
    code = int(status) if re.fullmatch("[1-9][0-9]{2}", status) else 200

    async def ask() -> str | None:
        async with answering(code, body) as client:
            return await http_status.failure(client, "http://service:8080/web/health")

    reason = finished(ask())
    assert (reason is None) == (code == 200)
    assert len(reason or "") <= 300


def host_map(data: bytes) -> None:
    """REHOME_HOST_MAP: every name is resolved to an address and a port, or SettingsError."""
    text = data.decode(errors="replace").replace("\x00", "")

    def read() -> None:
        resolve = resolver(read_settings(needed=()).host_map)
        for name in (*text.replace("=", ",").split(","), "postgres-pool-1"):
            host, port = resolve(name.strip(), 5432)
            assert isinstance(host, str)
            assert 0 < port < 65536

    with mock.patch.dict(os.environ, {"REHOME_HOST_MAP": text}):
        refused(read)


NODE: dict[str, Any] = {
    "ID": "n1",
    "Spec": {"Role": "manager", "Availability": "active", "Labels": {"zone": "a"}},
    "Description": {
        "Hostname": "one",
        "Platform": {"Architecture": "x86_64", "OS": "linux"},
        "Resources": {"NanoCPUs": 8_000_000_000, "MemoryBytes": 16_000_000_000},
        "Engine": {"EngineVersion": "26.1.5", "Labels": {}},
    },
    "Status": {"State": "ready", "Addr": "192.0.2.1"},
}


def docker_nodes_seeds() -> Iterable[bytes]:
    """Nodes of a swarm, and the version of an engine."""
    yield json.dumps([NODE]).encode()
    yield json.dumps({"Version": "26.1.5", "ApiVersion": "1.45", "MinAPIVersion": "1.24"}).encode()


SERVICE: dict[str, Any] = {
    "ID": "x1",
    "Version": {"Index": 12},
    "Spec": {
        "Name": "odoo-acme-7d9f2a54",
        "Labels": {
            "saasodoo.instance.id": str(INSTANCE.id),
            "traefik.http.routers.a.rule": "Host(`acme.example`)",
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "odoo", "Env": ["A=b"], "StopGracePeriod": 10_000_000_000},
            "Resources": {"Limits": {"NanoCPUs": 1_000_000_000}, "Reservations": {}},
            "RestartPolicy": {"Condition": "any"},
            "ForceUpdate": 0,
        },
        "EndpointSpec": {"Ports": [{"PublishMode": "host", "TargetPort": 8069}]},
    },
}
TASK: dict[str, Any] = {
    "ID": "t1",
    "CreatedAt": "2026-01-01T00:00:00Z",
    "NodeID": "n1",
    "DesiredState": "running",
    "Spec": SERVICE["Spec"]["TaskTemplate"],
    "Status": {"State": "running", "Err": "", "ContainerStatus": {"ContainerID": "c1", "ExitCode": 0}},
    "NetworksAttachments": [{"Network": {"Spec": {"Ingress": False}}, "Addresses": ["10.0.1.7/24"]}],
}


def docker_seeds() -> Iterable[bytes]:
    for value in (
        SERVICE,
        [SERVICE],
        [TASK],
        [{**TASK, "Status": {"State": "rejected", "Err": "No such image: x"}}],
    ):
        yield json.dumps(value).encode()


def supervisor_seeds() -> Iterable[bytes]:
    task = {
        "id": "t1", "pid": 7, "state": "running", "desired": "running", "template_version": 3,
        "exit_code": None, "error": None, "log_tail": ["a"],
    }  # fmt: skip
    spec = {
        "name": "odoo-acme", "command": ["x"], "replicas": 1, "env": {"ODOO_HTTP_PORT": "8069"}, "labels": {},
        "limits": {"cpu": 1.0, "memory": "2G"}, "stop_grace_seconds": 10.0,
    }  # fmt: skip
    service = {"id": "s1", "version": 4, "template_version": 3, "spec": spec, "tasks": [task]}
    yield b"200\n" + json.dumps(service).encode()
    yield b"200\n" + json.dumps([service]).encode()
    yield b'404\n{"detail": "no"}'


def database_seeds() -> Iterable[bytes]:
    good = {
        "status": "provisioned", "db_server_id": "0b6c1d7e-8f90-4a1b-b2c3-d4e5f6071829", "db_host": "10.0.0.7",
        "db_port": 5432, "db_user": "acme", "db_password": "a-secret-password", "message": "",
    }  # fmt: skip
    yield b"200\n" + json.dumps(good).encode()
    yield b"200\n" + json.dumps({**good, "db_port": "5432", "db_host": " "}).encode()
    yield b'422\n{"detail": [{"loc": ["body", "plan_tier"], "msg": "field required", "input": "a-secret"}]}'
    yield b'500\n{"detail": "duplicate key\\nDETAIL: Key (name)=(x) password=abc"}'


def definitions_seeds() -> Iterable[bytes]:
    yield json.dumps(topology.definitions()).encode()
    yield b'{"queues": [{"name": [], "vhost": "migration"}], "policies": [{"pattern": "(", "priority": "x"}]}'


def access_seeds() -> Iterable[bytes]:
    user = {
        "name": "crm", "password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR",
        "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["administrator"],
    }  # fmt: skip
    one = {"user": "crm", "vhost": topology.VHOST, "configure": "", "write": "", "read": ".*"}
    topic = {**one, "exchange": "migration"}
    yield json.dumps({"users": [user], "permissions": [one], "topic_permissions": [topic]}).encode()
    yield json.dumps({"users": [{**user, "tags": "a,b"}], "permissions": [{"user": []}]}).encode()
    yield b'{"users": [{}]}'


def health_seeds() -> Iterable[bytes]:
    return (b'200\n{"status": "pass"}', b"404\n<html>", b"303\n", b"500\n\xff")


def host_map_seeds() -> Iterable[bytes]:
    return (
        b"pool=127.0.0.1:5433,dedicated = 10.0.0.1",
        b"pool:5432=[::1]:5433",
        "pool=host:²".encode(),
        b"a=b:99999999999999999999",
    )
