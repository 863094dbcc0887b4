"""The Docker Engine's API, as far as the runtime needs it; the only file that sends requests to the engine.

`aiodocker`'s own update changes nothing but the image, so updates go through its raw request
(source: aiodocker 0.27, `DockerServices.update`). The contract suite on a real engine checks that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any

import aiodocker
import aiohttp
import orjson

from rehome_consumer.adapters.swarm import answers, json_types, versions
from rehome_consumer.adapters.swarm.failures import translated
from rehome_consumer.adapters.swarm.nodes import SwarmNode
from rehome_consumer.adapters.swarm.tasks import SwarmService, SwarmTask
from rehome_consumer.adapters.swarm.waiting import Watch
from rehome_consumer.errors import Incompatible, NotFound, SettingsError, Transient, Unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

log = logging.getLogger(__name__)

DEFAULT_HOST = "unix:///var/run/docker.sock"
REQUEST_SECONDS = 30.0
CONNECT_SECONDS = 10.0
RETRY_SECONDS = 0.5

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*([.:/@][A-Za-z0-9_-]+)*")
_SERVICE_LABEL = "com.docker.swarm.service.id"
_STALE = "update out of sequence"
_WAKING = ["start", "die", "destroy", "health_status"]


@contextlib.asynccontextmanager
async def connected(host: str | None) -> AsyncIterator[aiodocker.Docker]:
    """A client for the engine at `host` (as DOCKER_HOST is written).

    Every request is limited to 30 seconds, and every answer to `answers.LARGEST_ANSWER` bytes.
    Nothing is sent yet: the first request finds out whether the engine answers, and agrees on a version.

    Raises:
        SettingsError: `host` is not of that form.
    """
    limit = aiohttp.ClientTimeout(total=REQUEST_SECONDS, connect=CONNECT_SECONDS)
    try:
        docker = aiodocker.Docker(url=host or DEFAULT_HOST, timeout=limit)
    except ValueError as error:
        raise SettingsError(f"DOCKER_HOST: {host}: {error}") from None
    docker.session.detach()  # it would read an answer of any size
    docker.session = aiohttp.ClientSession(
        connector=docker.connector,
        timeout=limit,
        response_class=answers.BoundedAnswer,
        # An uncompressed answer cannot grow when it is read.
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
    )
    try:
        yield docker
    finally:
        await docker.close()


class Engine:
    """Services, tasks and containers of one engine, which must be a manager of the swarm.

    A request that gets no answer is sent again until `patience` is over: a daemon's restart takes
    seconds. Errors of every method: Unreachable (it did not answer all that time), Incompatible (it is too
    old, or it or a proxy before it refuses the request), Transient (it failed).
    """

    def __init__(self, docker: aiodocker.Docker, *, patience: float) -> None:
        self._docker = docker
        self._patience = patience

    async def require_manager(self) -> None:
        """Return when it is a manager of a swarm; asked once, since whoever asks comes again.

        Raises:
            Unreachable: it does not answer, or its swarm has no leader now.
            Incompatible: it is in no swarm, or a worker.
        """
        answer = await self._ask_once("GET", "info", {}, None)
        swarm = json_types.checked(json_types.INFO, answer).get("Swarm", {})
        if not swarm.get("ControlAvailable"):
            state = swarm.get("LocalNodeState") or "inactive"
            raise Incompatible(
                f"the Docker engine is no manager of a swarm (its node is {state}): "
                "DOCKER_HOST must name a manager"
            )

    async def service(self, name: str) -> SwarmService | None:
        """The service of this name or id, or None."""
        if not _NAME.fullmatch(name):
            return None  # no service can have it, and in a request it would be another path
        try:
            answer = await self._ask("GET", f"services/{name}")
        except NotFound:
            return None
        found = SwarmService.read(answer)
        return found if name in (found.name, found.id) else None  # the engine also accepts the start of an id

    async def services(self, **filters: list[str]) -> list[SwarmService]:
        """The services of the swarm to which these filters of the engine apply, by default all."""
        answer = await self._ask("GET", "services", {"filters": _filters(**filters)})
        return [SwarmService.read(service) for service in json_types.checked(json_types.LIST, answer)]

    async def update(self, service: SwarmService, spec: Mapping[str, Any]) -> bool:
        """Replace the complete definition of the version that was inspected; False if that is out of date.

        A lost answer makes the retry out of date, too: after False the caller inspects the service again.
        The request has the service's name, not its id, so that a proxy can recognise an instance.

        Raises:
            NotFound: the service was removed.
        """
        try:
            await self._ask(
                "POST",
                f"services/{service.name}/update",
                {"version": str(service.version)},
                orjson.dumps(spec),
            )
        except Transient as error:
            if _STALE in str(error).lower():
                return False
            raise
        return True

    async def tasks(self, service: SwarmService) -> tuple[SwarmTask, ...]:
        """All tasks of the service that the swarm still lists, on every node, oldest first."""
        answer = await self._ask("GET", "tasks", {"filters": _filters(service=[service.id])})
        tasks = map(SwarmTask.read, json_types.checked(json_types.LIST, answer))
        return tuple(sorted(tasks, key=lambda task: task.created))

    async def tasks_on(self, node: SwarmNode) -> tuple[SwarmTask, ...]:
        """All tasks, of every service, that are to run on the node."""
        wanted = _filters(node=[node.id], **{"desired-state": ["running"]})
        answer = await self._ask("GET", "tasks", {"filters": wanted})
        return tuple(map(SwarmTask.read, json_types.checked(json_types.LIST, answer)))

    async def nodes(self) -> tuple[SwarmNode, ...]:
        """All nodes of the swarm, by name."""
        answer = await self._ask("GET", "nodes")
        nodes = map(SwarmNode.read, json_types.checked(json_types.LIST, answer))
        return tuple(sorted(nodes, key=lambda node: node.name))

    async def own_node(self) -> str:
        """Id of the node whose engine this is."""
        answer = await self._ask("GET", "info")
        return str(json_types.checked(json_types.INFO, answer)["Swarm"]["NodeID"])

    async def has_image(self, name: str) -> bool:
        """Whether the image is on this node; a name that no image can have is on none."""
        if not _IMAGE.fullmatch(name):
            return False
        try:
            await self._ask("GET", f"images/{name}/json")
        except NotFound:
            return False
        return True

    async def containers(self, service: SwarmService) -> tuple[str, ...]:
        """Ids of the service's containers that run on this node, whatever the tasks say."""
        wanted = _filters(
            label=[f"{_SERVICE_LABEL}={service.id}"], status=["running", "paused", "restarting"]
        )
        answer = await self._ask("GET", "containers/json", {"filters": wanted})
        return tuple(container["Id"] for container in json_types.checked(json_types.CONTAINERS, answer))

    async def last_lines(self, task: SwarmTask, count: int) -> tuple[str, ...]:
        """The last lines that a task wrote, cut off where they are long.

        Empty where there is no log or its node does not answer; one line that says so where they are too large.
        """
        params = {"stdout": "1", "stderr": "1", "tail": str(count)}
        try:
            async with (
                self._docker._query(  # noqa: SLF001, aiodocker reads services' logs only, not tasks'
                    f"tasks/{task.id}/logs", params=params
                ) as answer,
                answer,
            ):
                raw = await answers.read_up_to(answer, answers.LARGEST_LOG)
        except (aiodocker.DockerError, aiohttp.ClientError, TimeoutError):
            return ()
        except Transient as error:
            return (str(error),)
        lines = answers.log_text(raw).splitlines()[-count:]
        return tuple(line[: answers.LONGEST_LOG_LINE] for line in lines)

    @contextlib.asynccontextmanager
    async def following(self, service: SwarmService) -> AsyncIterator[Watch]:
        """Listen to what happens to the service's containers, for the length of an `async with` block.

        An event is a hint that something has changed, never proof: events are of one node, and get lost.
        """
        watch = Watch()
        since = f"{time.time():.0f}"
        listener = asyncio.create_task(self._listen(service, since, watch))
        try:
            yield watch
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _listen(self, service: SwarmService, since: str, watch: Watch) -> None:
        """Ring for every event; when the stream breaks, the waits still look at their interval."""
        wanted = _filters(type=["container"], event=_WAKING, label=[f"{_SERVICE_LABEL}={service.id}"])
        forever = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
        with contextlib.suppress(aiodocker.DockerError, aiohttp.ClientError, TimeoutError):
            async with (
                self._docker._query(  # noqa: SLF001, its public method shares one filter among all callers
                    "events", params={"filters": wanted, "since": since}, timeout=forever
                ) as stream,
                stream,
            ):
                try:
                    async for _ in answers.events(stream):
                        watch.ring()
                except Transient as error:
                    log.warning("engine.events_given_up service=%s error=%s", service.name, error)

    async def _ask(
        self, method: str, path: str, params: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Any:
        started = time.monotonic()
        while True:
            try:
                if self._docker.api_version == versions.UNKNOWN:
                    answer = await self._ask_once("GET", "version", {}, None, versioned=False)
                    self._docker.api_version = versions.agreed(answer)
                return await self._ask_once(method, path, dict(params or {}), body)
            except Unreachable as error:
                if versions.OTHER_VERSION in str(error).lower():
                    self._docker.api_version = versions.UNKNOWN
                waited = time.monotonic() - started
                if waited > self._patience:
                    raise Unreachable(f"{error} (repeated for {waited:.0f} s)") from None
            await asyncio.sleep(RETRY_SECONDS)

    async def _ask_once(
        self, method: str, path: str, params: dict[str, Any], body: bytes | None, *, versioned: bool = True
    ) -> Any:
        what = f"Docker engine, {method} /{path.partition('?')[0]}"
        try:
            return await self._docker._query_json(  # noqa: SLF001, the only request that sends a complete definition
                path, method=method, params=params, data=body, versioned_api=versioned
            )
        except aiodocker.DockerError as error:
            raise translated(what, error) from None
        except TimeoutError:
            raise Unreachable(f"{what}: no answer in {REQUEST_SECONDS:.0f} s") from None
        except aiohttp.ClientError as error:
            raise Unreachable(f"{what}: {type(error).__name__} {error}".strip()) from None
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise Transient(f"{what}: the answer is no JSON ({type(error).__name__})") from None


def _filters(**wanted: list[str]) -> str:
    return json.dumps(wanted)
