"""The version of the engine's API: agreed with the engine by the first request, and whenever it changes.

It is always the newest that the engine has. The requests are the same in all of them, but an engine that is asked in
an older version drops from a definition what that version did not have, and an update would erase it (source: the
engine's `adjustForAPIVersion`).
"""

from __future__ import annotations

import logging
from typing import Any, Final

from rehome_consumer.adapters.swarm import json_types
from rehome_consumer.errors import Incompatible

log = logging.getLogger(__name__)

UNKNOWN: Final = "auto"
"""aiodocker's word for a version that is not agreed yet."""

OLDEST: Final = (1, 41)
"""Docker 20.10: the oldest that the tests were run on."""

OTHER_VERSION: Final = "client version"
"""In every error about the version of a request: it is too old or too new for the engine that answers now."""


def agreed(answer: Any) -> str:
    """The version for all requests, `v1.45`, from the engine's answer to `GET /version`.

    Raises:
        Incompatible: the engine is too old.
        Transient: this is no answer to that question.
    """
    json_types.checked(json_types.VERSION, answer)
    version, api = answer.get("Version") or "of unknown version", answer["ApiVersion"]
    if _numbers(api) < OLDEST:
        raise Incompatible(
            f"Docker engine {version} has the API up to version {api}; rehome needs {_text(OLDEST)} "
            "(Docker 20.10) or newer: update Docker, or name a newer manager of the swarm in DOCKER_HOST"
        )
    log.info(
        "engine.version docker=%s api=%s oldest=%s", version, api, answer.get("MinAPIVersion") or "unknown"
    )
    return f"v{api}"


def _numbers(api: str) -> tuple[int, ...]:
    return tuple(int(number) for number in api.split("."))


def _text(api: tuple[int, ...]) -> str:
    return ".".join(map(str, api))
