"""The supervisor's services as they come over HTTP, and its errors as `rehome_consumer.errors`."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import quote

import httpx
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from rehome_consumer.adapters.common import http_body, http_status
from rehome_consumer.errors import Incompatible, TimedOut, Transient, Unreachable
from rehome_consumer.model import Healthy, Service, Task
from rehome_events.parts import Cores, Limits, Size

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

INSTANCE_LABEL = "saasodoo.instance.id"
HTTP_PORT = "ODOO_HTTP_PORT"

LARGEST_ANSWER: Final = 8 * 1024 * 1024
"""Bytes that are read of an answer."""

_PORT = re.compile(r"[0-9]{1,5}")
_SECONDS = 30.0
_SHOWN_LINES = 10
_SHOWN_TEXT = 300


class ProcessTask(BaseModel):
    """A task as the supervisor reports it; `error` is why it could not be started at all."""

    id: str
    pid: int | None
    state: Literal["running", "exited"]
    desired: Literal["running", "shutdown"]
    template_version: int
    exit_code: int | None
    error: str | None
    log_tail: tuple[str, ...]

    @property
    def running(self) -> bool:
        """Whether its process is there, or about to be."""
        return self.state == "running"


class _Limits(BaseModel):
    """A task's limits."""

    cpu: Cores | None = None
    memory: Size | None = None


class _Node(BaseModel):
    """What the node has."""

    cpus: Cores


class _Definition(BaseModel):
    """The fields of a definition that are read."""

    name: str
    replicas: Annotated[int, Field(ge=0, le=1000)]
    env: dict[str, str]
    limits: _Limits
    stop_grace_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _as_it_came(spec: dict[str, Any]) -> dict[str, Any]:
    """The complete definition, checked as far as it is read."""
    _Definition.model_validate(spec, strict=True)
    return spec


class ProcessService(BaseModel):
    """A service as the supervisor reports it.

    Attributes:
        version: what an update must name.
        template_version: the version that last changed what a task is made from.
        spec: the complete definition.
        tasks: oldest first; ended ones are listed for a while.
    """

    id: str
    version: int
    template_version: int
    spec: Annotated[dict[str, Any], AfterValidator(_as_it_came)]
    tasks: tuple[ProcessTask, ...]

    @property
    def name(self) -> str:
        """The service's name."""
        return str(self.spec["name"])

    @property
    def stop_grace_seconds(self) -> float:
        """Seconds from SIGTERM to SIGKILL."""
        return float(self.spec["stop_grace_seconds"])

    def running(self) -> tuple[ProcessTask, ...]:
        """Tasks whose process is there, or about to be."""
        return tuple(task for task in self.tasks if task.running)

    def sole_current_task(self, *, beside: bool = False) -> ProcessTask | None:
        """The task made from the present definition, if it runs and no other does (they share one port).

        Those that were asked to end may, if `beside`: they take no requests any more.
        """
        running = [task for task in self.running() if task.desired == "running" or not beside]
        if len(running) != 1 or running[0].desired != "running":
            return None
        return running[0] if running[0].template_version == self.template_version else None

    def unasked_ends(self, earlier: set[str]) -> tuple[ProcessTask, ...]:
        """Tasks not among `earlier` that ended although nobody stopped them."""
        return tuple(
            task
            for task in self.tasks
            if not task.running and task.desired == "running" and task.id not in earlier
        )

    def describe(self, earlier: set[str]) -> str:
        """What its tasks did: how many ended by themselves, the last one's exit code, and the last lines."""
        ended, running = self.unasked_ends(earlier), self.running()
        parts = [f"{len(running)} running"]
        if ended:
            parts.append(f"{len(ended)} ended by themselves, the last with exit code {ended[-1].exit_code}")
        shown = ended[-1:] or running[-1:]
        lines = [line for task in shown for line in task.log_tail[-_SHOWN_LINES:]]
        return "; ".join([*parts, f"last lines: {' | '.join(lines) or '(none)'}"])

    def as_service(self) -> Service:
        """The service as steps see it."""
        return Service(
            name=self.name,
            id=self.id,
            replicas=int(self.spec["replicas"]),
            running=tuple(Task(task.id, running=True, last_lines=task.log_tail) for task in self.running()),
            env=dict(self.spec["env"]),
            spec=self.spec,
            limits=Limits(
                cpu_limit=self.spec["limits"].get("cpu"), memory_limit=self.spec["limits"].get("memory")
            ),
        )

    def healthy(self, task: ProcessTask, url: str, at: datetime) -> Healthy:
        """The proof that this task serves."""
        return Healthy(task=task.id, url=url, at=at, service_id=self.id, internal_url=url)


class Services:
    """The supervisor's HTTP interface."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def cpus(self) -> float:
        """Cores of the only node."""
        node: _Node = _parsed(_NODE, await self._send("GET", "/node"))
        return node.cpus

    async def require_ready(self) -> None:
        """Return when the supervisor answers. Raises Unreachable, TimedOut."""
        await self._send("GET", "/services", params={"label": f"{INSTANCE_LABEL}=none"})

    async def by_name(self, name: str) -> ProcessService | None:
        """The service of this name, or None."""
        answer = await self._send("GET", f"/services/{quote(name, safe='')}")
        return None if answer.status_code == httpx.codes.NOT_FOUND else _service(answer)

    async def by_label(self, label: str, value: str) -> list[ProcessService]:
        """The services that carry this label."""
        answer = await self._send("GET", "/services", params={"label": f"{label}={value}"})
        services: list[ProcessService] = _parsed(_SERVICES, answer)
        return services

    async def update(self, service: ProcessService, spec: dict[str, Any]) -> ProcessService | None:
        """Replace the complete definition of this version of the service; None if it is out of date.

        Raises:
            Incompatible: the supervisor refuses the definition; has its words.
        """
        answer = await self._send(
            "PUT",
            f"/services/{quote(service.name, safe='')}",
            params={"version": str(service.version)},
            json=spec,
        )
        if answer.status_code in {httpx.codes.CONFLICT, httpx.codes.NOT_FOUND}:
            return None
        return _service(answer)

    def url(self, service: ProcessService) -> str:
        """Base URL of the instance: on the supervisor's host, at the port in its environment.

        Raises:
            Incompatible: the environment names no port.
        """
        port = str(service.spec["env"].get(HTTP_PORT, ""))
        if not _PORT.fullmatch(port):
            raise Incompatible(f"service {service.name} has no port in {HTTP_PORT} of its environment")
        return f"http://{self._http.base_url.host}:{port}"

    async def failure(self, service: ProcessService, paths: Iterable[str]) -> str | None:
        """Ask the instance for each path; None when all answer 200, else what the first failing one answered."""
        for path in paths:
            failure = await http_status.failure(self._http, self.url(service) + path)
            if failure is not None:
                return f"{path}: {failure}"
        return None

    async def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        what = f"the supervisor at {self._http.base_url.host}:{self._http.base_url.port}, {method} {path}"
        limit = self._http.timeout.read or _SECONDS
        try:
            async with (
                asyncio.timeout(limit),
                self._http.stream(method, path, headers=http_body.UNCOMPRESSED, **arguments) as response,
            ):
                answer = await _complete(response, what)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise TimedOut(f"{what}: no answer in time ({type(error).__name__})") from None
        except httpx.HTTPError as error:
            raise Unreachable(f"{what}: {error or type(error).__name__}") from None
        if answer.status_code == httpx.codes.BAD_REQUEST:
            raise Incompatible(f"{what}: {answer.text[:_SHOWN_TEXT]}")
        if answer.is_error and answer.status_code not in {httpx.codes.CONFLICT, httpx.codes.NOT_FOUND}:
            raise Transient(f"{what}: HTTP {answer.status_code} {answer.text[:_SHOWN_TEXT]}")
        return answer


async def _complete(response: httpx.Response, what: str) -> httpx.Response:
    """The answer with its body, which is read up to a limit."""
    body = await http_body.read(response, LARGEST_ANSWER)
    if len(body) > LARGEST_ANSWER:
        raise Transient(f"{what}: the answer has more than {LARGEST_ANSWER} bytes")
    return httpx.Response(response.status_code, content=body, request=response.request)


_NODE = TypeAdapter(_Node)
_SERVICE = TypeAdapter(ProcessService)
_SERVICES = TypeAdapter(list[ProcessService])


def _service(answer: httpx.Response) -> ProcessService:
    service: ProcessService = _parsed(_SERVICE, answer)
    return service


def _parsed(expected: TypeAdapter[Any], answer: httpx.Response) -> Any:
    """The answer's body; an error names fields only, since a definition holds passwords."""
    try:
        return expected.validate_json(answer.content)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, item["loc"])) or "body" for item in error.errors()}))
        raise Transient(
            f"the supervisor's answer to {answer.request.url.path} is wrong in: {fields}"
        ) from None
