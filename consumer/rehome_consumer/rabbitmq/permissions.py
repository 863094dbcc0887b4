"""Which user may do what on the broker: each role has only the permissions that it needs.

| role | may |
|---|---|
| billing | publish its own types of events on its exchange |
| migrator (the consumer) | publish events, retries and dead letters; read the handlers' queues |
| operator (`rehome dead`) | read the dead letters, and send them to their handlers |
| subscriber | own everything whose name begins with `sub_<name>.`, and bind it to the types it may see |

No role may declare, bind or delete anything of the saga: the broker loads the topology at boot.
RabbitMQ grants by regular expressions for names (configure, write, read), and on a topic exchange for
routing keys as well. Without an entry for an exchange its routing keys are not restricted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, get_args

from rehome_consumer.rabbitmq.topology import DEAD, HANDLER, queue_of, retry_exchange
from rehome_events.catalog import CATALOG

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Role = Literal["billing", "migrator", "operator", "subscriber"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

READABLE: Final = tuple(entry.type for entry in CATALOG.values() if "subscribers" in entry.readers)
"""Types that a subscriber may be allowed to see."""

_NOTHING: Final = "^$"
_PUBLISHERS: Final = {"billing": "billing", "rehome": "migration"}  # as the catalogue names them -> exchange


@dataclass(frozen=True, slots=True)
class Rights:
    """Regular expressions as RabbitMQ takes them; `topics` is exchange -> (write, read) for routing keys."""

    configure: str
    write: str
    read: str
    topics: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def triple(self) -> tuple[str, str, str]:
        """Configure, write, read."""
        return self.configure, self.write, self.read


@dataclass(frozen=True, slots=True)
class User:
    """A wanted user. Its password is in an environment variable or in a file; one of both is set.

    Attributes:
        keys: types that a subscriber may see.
    """

    name: str
    role: Role
    keys: tuple[str, ...] = ()
    password_env: str | None = None
    password_file: str | None = None

    @property
    def rights(self) -> Rights:
        """What it may do."""
        return rights(self.role, self.name, self.keys)


def rights(role: Role, name: str = "", keys: Iterable[str] = ()) -> Rights:
    """The rights of a role.

    Args:
        role: which.
        name: of the user; a subscriber's queues and exchanges begin with `sub_<name>.`.
        keys: types that a subscriber may see.
    """
    if role == "billing":
        exchange = _PUBLISHERS["billing"]
        return Rights(_NOTHING, _any_of(exchange), _NOTHING, {exchange: (_families("billing"), _NOTHING)})
    if role == "migrator":
        exchange = _PUBLISHERS["rehome"]
        # Delays and handlers by pattern: no other user may create such a name, and a new step needs no new grant.
        write = f"^({re.escape(exchange)}|{re.escape(retry_exchange(''))}[0-9a-z]+|{re.escape(DEAD)})$"
        read = f"^{re.escape(queue_of(''))}[a-z_]+$"
        return Rights(_NOTHING, write, read, {exchange: (_families("rehome"), _NOTHING)})
    if role == "operator":
        # Not writing to `migration.dead`: a user that may write to a queue may remove its bindings.
        return Rights(_NOTHING, _any_of(HANDLER), _any_of(DEAD))
    exchange = _PUBLISHERS["rehome"]
    own = rf"sub_{re.escape(name)}\."
    read = f"^({own}.*|{re.escape(exchange)})$"
    return Rights(f"^{own}", f"^{own}", read, {exchange: (_NOTHING, _any_of(*keys))})


def _any_of(*names: str) -> str:
    escaped = [re.escape(name) for name in names]
    return f"^{escaped[0]}$" if len(escaped) == 1 else f"^({'|'.join(escaped)})$"


def _families(publisher: str) -> str:
    """The routing keys of all types of a publisher, including types of later releases."""
    kinds = {entry.type.partition(".")[0] for entry in CATALOG.values() if entry.published_by == publisher}
    names = sorted(re.escape(kind) for kind in kinds)
    return rf"^{names[0]}\.[a-z_]+$" if len(names) == 1 else rf"^({'|'.join(names)})\.[a-z_]+$"
