"""Resizing a service without an interruption: two updates, of which the second can be made after a crash, too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rehome_consumer.adapters.swarm.json_types import BeforeResize
from rehome_consumer.adapters.swarm.spec import copied, host_ports, template_of, with_limits
from rehome_consumer.errors import Incompatible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rehome_consumer.adapters.swarm.spec import Spec
    from rehome_events.parts import Limits

LABEL = "rehome.before-resize"


def started(spec: Mapping[str, Any], limits: Limits, *, beside: bool = True) -> Spec:
    """New limits, in one rolling update that starts the new task before it stops the old one.

    Without room for one more task (`beside`), or with a port of the node, it stops the old one first.

    The order belongs to this update, not to the service: the former values are saved in a label, so that
    after a crash in between a later run can finish (`finished`) or undo the resize (`undone`). A change of
    a service's label restarts nothing.
    """
    changed = with_limits(spec, limits)
    if changed == spec:
        return changed
    config = changed.get("UpdateConfig")
    if LABEL not in (changed.get("Labels") or {}):
        before = {"UpdateConfig": config, "Resources": template_of(spec).get("Resources")}
        changed["Labels"] = {**(changed.get("Labels") or {}), LABEL: json.dumps(before)}
    # The caller judges a failure: Swarm's own rollback would hide it.
    order = "start-first" if beside and not host_ports(changed) else "stop-first"
    changed["UpdateConfig"] = {"Parallelism": 1, **(config or {}), "Order": order, "FailureAction": "pause"}
    return changed


def finished(spec: Mapping[str, Any]) -> Spec:
    """After a resize: the new limits stay, the service's own update order is restored."""
    return _after_resize(spec, "UpdateConfig")


def undone(spec: Mapping[str, Any]) -> Spec:
    """After a failed resize: limits and update order as they were."""
    return _after_resize(spec, "UpdateConfig", "Resources")


def is_started(spec: Mapping[str, Any]) -> bool:
    """Whether a resize was started and not finished."""
    return LABEL in (spec.get("Labels") or {})


def stops_first(spec: Mapping[str, Any]) -> bool:
    """Whether the old task is stopped before the new one starts."""
    return bool((spec.get("UpdateConfig") or {}).get("Order") == "stop-first")


def _after_resize(spec: Mapping[str, Any], *restored: str) -> Spec:
    changed = copied(spec)
    if not is_started(spec):
        return changed
    before = _before_resize(changed["Labels"].pop(LABEL))
    places = {"UpdateConfig": changed, "Resources": template_of(changed)}
    for name in restored:
        if before[name] is None:
            places[name].pop(name, None)
        else:
            places[name][name] = before[name]
    return changed


def _before_resize(label: str) -> dict[str, Any]:
    """What `started` saved.

    Raises:
        Incompatible: the label was written by someone else.
    """
    try:
        return BeforeResize.model_validate_json(label).model_dump()
    except ValidationError:
        raise Incompatible(
            f"the service's label {LABEL} is not what a resize writes there: remove it by hand"
        ) from None
