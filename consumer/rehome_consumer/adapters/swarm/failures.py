"""The engine's errors as `rehome_consumer.errors`, with the engine's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.swarm.versions import OTHER_VERSION
from rehome_consumer.errors import Incompatible, NotFound, TimedOut, Transient, Unreachable

if TYPE_CHECKING:
    import aiodocker

_UNREACHABLE: Final = 900  # aiodocker's own number for "no connection"
_SERVERS_FAULT: Final = 500
_SHOWN_TEXT: Final = 300

# Words of status 500 and 503 while a manager starts or elects a leader: it passes.
_STARTING: Final = (
    "not a swarm manager",
    "does not have a leader",
    "unavailable",
    "deadlineexceeded",
    "deadline",
)


def translated(what: str, error: aiodocker.DockerError) -> Exception:
    """The error to raise.

    Args:
        what: the request.
        error: what came instead of an answer.
    """
    said = str(error.message)[:_SHOWN_TEXT].strip()
    message = f"{what}: {said}"
    starting = error.status >= _SERVERS_FAULT and any(words in said.lower() for words in _STARTING)
    if error.status == _UNREACHABLE or starting:
        return Unreachable(message)
    match error.status:
        case 404:
            return NotFound(message)
        case 400 if OTHER_VERSION in said.lower():
            return Unreachable(message)  # another engine than the one that a version was agreed with
        case 400:
            return Incompatible(message)
        case 401 | 403 | 405:
            return Incompatible(
                f"{message} (HTTP {error.status}: the requests that must be allowed are listed in docs/swarm.md)"
            )
        case 408 | 504:
            return TimedOut(message)
        case 502 | 503:
            return Unreachable(message)
        case _:
            return Transient(f"{message} (HTTP {error.status})")
