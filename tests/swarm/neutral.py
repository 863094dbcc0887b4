"""Swarm definitions in the form that the contract suite shares with the fake and the processes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rehome_consumer.adapters.swarm.spec import env_of, size_bytes, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rehome_consumer.model import Healthy, Instance, Service
    from rehome_consumer.ports.steps import Runtime
    from rehome_events.parts import Limits

SECOND = 1_000_000_000


class NeutralRuntime:
    """The port `Runtime` over another one; only definitions are converted, in both directions without loss."""

    def __init__(self, runtime: Runtime, networks: Mapping[str, str]) -> None:
        self._runtime = runtime
        self._networks = networks

    async def require_ready(self) -> None:
        await self._runtime.require_ready()

    async def find(self, instance: Instance) -> Service:
        service = await self._runtime.find(instance)
        return replace(service, spec=as_neutral(service.spec, self._networks))

    async def require_can_run(self, instance: Instance, limits: Limits | None) -> tuple[str, ...]:
        return await self._runtime.require_can_run(instance, limits)

    async def begin_stop(self, instance: Instance) -> None:
        await self._runtime.begin_stop(instance)

    async def stop(self, instance: Instance) -> None:
        await self._runtime.stop(instance)

    async def configure(self, instance: Instance, env: Mapping[str, str]) -> None:
        await self._runtime.configure(instance, env)

    async def start(
        self, instance: Instance, replicas: int, limits: Limits | None, *, beside: bool = False
    ) -> Healthy:
        return await self._runtime.start(instance, replicas, limits, beside=beside)

    async def resize(self, instance: Instance, limits: Limits) -> tuple[str, ...]:
        return await self._runtime.resize(instance, limits)

    async def restore_spec(self, instance: Instance, spec: Mapping[str, Any]) -> None:
        shared = {
            name: spec[name] for name in ("labels", "env", "limits", "replicas", "force") if name in spec
        }
        await self._runtime.restore_spec(instance, as_swarm(spec.get("rest", {}), shared))


def as_neutral(spec: Mapping[str, Any], networks: Mapping[str, str]) -> dict[str, Any]:
    """The shared fields, and everything else under `rest`."""
    rest = copy.deepcopy(dict(spec))
    template = rest["TaskTemplate"]
    shared = {
        "labels": rest.pop("Labels"),
        "env": env_of(rest),
        "limits": _limits(template.get("Resources", {}).pop("Limits", {})),
        "replicas": rest["Mode"]["Replicated"].pop("Replicas"),
        "networks": [networks[network["Target"]] for network in template["Networks"]],
        "force": template.pop("ForceUpdate"),
    }
    del template["ContainerSpec"]["Env"]
    return {**shared, "rest": rest}


def as_swarm(spec: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """The definition with these shared fields changed."""
    changed = copy.deepcopy(dict(spec))
    for name, value in shared.items():
        _CHANGES[name](changed, value)
    return changed


def _limits(limits: Mapping[str, int]) -> dict[str, Any]:
    shared: dict[str, Any] = {}
    if "NanoCPUs" in limits:
        shared["cpu"] = limits["NanoCPUs"] / SECOND
    if "MemoryBytes" in limits:
        shared["memory"] = size_text(limits["MemoryBytes"])
    if "Pids" in limits:
        shared["pids"] = limits["Pids"]
    return shared


def _set_limits(spec: dict[str, Any], limits: Mapping[str, Any]) -> None:
    changed: dict[str, int] = {}
    if "cpu" in limits:
        changed["NanoCPUs"] = round(limits["cpu"] * SECOND)
    if "memory" in limits:
        changed["MemoryBytes"] = size_bytes(limits["memory"])
    if "pids" in limits:
        changed["Pids"] = limits["pids"]
    spec["TaskTemplate"].setdefault("Resources", {})["Limits"] = changed


def _set_env(spec: dict[str, Any], env: Mapping[str, str]) -> None:
    spec["TaskTemplate"]["ContainerSpec"]["Env"] = [f"{name}={value}" for name, value in env.items()]


def _set_labels(spec: dict[str, Any], labels: Mapping[str, str]) -> None:
    spec["Labels"] = {**spec.get("Labels", {}), **labels}


def _set_replicas(spec: dict[str, Any], replicas: int) -> None:
    spec["Mode"]["Replicated"]["Replicas"] = replicas


def _set_force(spec: dict[str, Any], force: int) -> None:
    spec["TaskTemplate"]["ForceUpdate"] = force


def _set_grace(spec: dict[str, Any], seconds: float) -> None:
    spec["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] = int(seconds * SECOND)


_CHANGES: dict[str, Callable[[dict[str, Any], Any], None]] = {
    "limits": _set_limits,
    "env": _set_env,
    "labels": _set_labels,
    "replicas": _set_replicas,
    "force": _set_force,
    "stop_grace_seconds": _set_grace,
}
