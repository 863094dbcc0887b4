"""Who may do what on the broker: each role's least rights, and how a broker's users differ from them.

| role | may |
|---|---|
| billing | publish its own types of events on its exchange |
| migrator (the consumer) | publish events, retries and dead letters; read the handlers' queues |
| operator (`rehome dead`) | read the dead letters, and send them to their handlers |
| subscriber | own everything whose name begins with `sub_<name>.`, and bind it to the types it may see |

No role may declare, bind or delete anything of ours: the topology is the broker's own, loaded at boot.
RabbitMQ grants by regular expressions over names (configure, write, read), and on a topic exchange over
routing keys as well. Without an entry for an exchange its routing keys are not restricted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, get_args

from consumer.topology import DEAD, HANDLER, queue_of, retry_exchange
from events.catalog import CATALOG

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
    """Regular expressions as RabbitMQ takes them; `topics` is exchange -> (write, read) over routing keys."""

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
    """A user there shall be. Its password is in an environment variable or a file; one of both is set.

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
        name: of the user; a subscriber's own things begin with `sub_<name>.`.
        keys: types that a subscriber may see.
    """
    if role == "billing":
        exchange = _PUBLISHERS["billing"]
        return Rights(_NOTHING, _any_of(exchange), _NOTHING, {exchange: (_families("billing"), _NOTHING)})
    if role == "migrator":
        exchange = _PUBLISHERS["rehome"]
        # Delays and handlers by pattern: nobody else may make such a name, and a new step needs no new grant.
        write = f"^({re.escape(exchange)}|{re.escape(retry_exchange(''))}[0-9a-z]+|{re.escape(DEAD)})$"
        read = f"^{re.escape(queue_of(''))}[a-z_]+$"
        return Rights(_NOTHING, write, read, {exchange: (_families("rehome"), _NOTHING)})
    if role == "operator":
        # Not writing to `migration.dead`: who may write to a queue may take its bindings away.
        return Rights(_NOTHING, _any_of(HANDLER), _any_of(DEAD))
    exchange = _PUBLISHERS["rehome"]
    own = rf"sub_{re.escape(name)}\."
    read = f"^({own}.*|{re.escape(exchange)})$"
    return Rights(f"^{own}", f"^{own}", read, {exchange: (_NOTHING, _any_of(*keys))})


def _any_of(*names: str) -> str:
    escaped = [re.escape(name) for name in names]
    return f"^{escaped[0]}$" if len(escaped) == 1 else f"^({'|'.join(escaped)})$"


def _families(publisher: str) -> str:
    """The routing keys of all types of a publisher, those of later releases included."""
    kinds = {entry.type.partition(".")[0] for entry in CATALOG.values() if entry.published_by == publisher}
    names = sorted(re.escape(kind) for kind in kinds)
    return rf"^{names[0]}\.[a-z_]+$" if len(names) == 1 else rf"^({'|'.join(names)})\.[a-z_]+$"


@dataclass(slots=True)
class Access:
    """The users that a broker has, and what they may do in our virtual host.

    Attributes:
        tags: user -> tags.
        permissions: user -> (configure, write, read).
        topics: (user, exchange) -> (write, read).
    """

    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    permissions: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    topics: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to change: `why` in a sentence, and what rabbitmqctl would be called with."""

    why: str
    command: Literal[
        "add_user", "change_password", "set_user_tags", "set_topic_permissions", "set_permissions"
    ]
    user: str
    arguments: tuple[str, ...] = ()


def changes(user: User, there: Access, *, password_fits: bool) -> list[Change]:
    """What must change on a broker for this user, in the order in which it must be done.

    Routing keys are restricted before the exchange is opened. Entries for exchanges that the role does not
    name are left alone: they only take away.
    """
    name, wanted = user.name, user.rights
    made: list[Change] = []
    if name not in there.tags:
        made.append(Change(f"user {name} is missing", "add_user", name))
    elif not password_fits:
        made.append(Change(f"user {name} has another password", "change_password", name))
    if tags := there.tags.get(name, ()):
        made.append(Change(f"user {name} has tags: {', '.join(tags)}; wanted none", "set_user_tags", name))
    for exchange, patterns in wanted.topics.items():
        have = there.topics.get((name, exchange))
        if have != patterns:
            what = f"user {name}: routing keys on exchange {exchange} (write, read) are {_shown(have)}"
            made.append(
                Change(
                    f"{what}, wanted {_shown(patterns)}", "set_topic_permissions", name, (exchange, *patterns)
                )
            )
    permissions = there.permissions.get(name)
    if permissions != wanted.triple:
        what = f"user {name}: permissions (configure, write, read) are {_shown(permissions)}"
        made.append(Change(f"{what}, wanted {_shown(wanted.triple)}", "set_permissions", name, wanted.triple))
    return made


def strays(users: Iterable[User], others: Iterable[str], there: Access) -> list[str]:
    """Users that may do something in our virtual host, and are neither in the file nor known otherwise."""
    known = {user.name for user in users} | set(others)
    return sorted(there.permissions.keys() - known)


def _shown(patterns: Iterable[str] | None) -> str:
    return " ".join(patterns) if patterns is not None else "not set"
