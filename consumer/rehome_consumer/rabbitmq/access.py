"""How a broker's users differ from the wanted ones, and what to change."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from rehome_consumer.errors import Refused
from rehome_consumer.rabbitmq.topology import VHOST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rehome_consumer.rabbitmq.permissions import User

_SHOWN: Final = 300
_SALT: Final = 4  # bytes before the digest: RabbitMQ's guide "Credentials and Passwords"
_DIGESTS: Final = {
    "rabbit_password_hashing_sha256": hashlib.sha256,
    "rabbit_password_hashing_sha512": hashlib.sha512,
}


@dataclass(slots=True)
class Access:
    """The users that a broker has, and their permissions in the virtual host `migration`.

    Attributes:
        tags: user -> tags.
        hashes: user -> algorithm and salted hash of its password.
        permissions: user -> (configure, write, read).
        topics: (user, exchange) -> (write, read) for routing keys.
        exchanges: names of the virtual host's.
    """

    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hashes: dict[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    permissions: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    topics: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    exchanges: frozenset[str] = frozenset()

    @classmethod
    def of(cls, definitions: Any) -> Access:
        """Read a broker's exported definitions, of the whole node.

        Raises:
            Refused: they are not definitions; they do not say who has access.
        """
        try:
            return cls._of(definitions)
        except (AttributeError, KeyError, TypeError) as error:
            raise Refused(
                f"not the definitions of a broker: {type(error).__name__} {error}"[:_SHOWN]
            ) from None

    @classmethod
    def _of(cls, definitions: dict[str, Any]) -> Access:
        users = definitions.get("users", [])
        permissions = [one for one in definitions.get("permissions", []) if one.get("vhost") == VHOST]
        topics = [one for one in definitions.get("topic_permissions", []) if one.get("vhost") == VHOST]
        return cls(
            {str(one["name"]): _tags(one.get("tags")) for one in users},
            {
                str(one["name"]): (str(one.get("hashing_algorithm")), str(one.get("password_hash")))
                for one in users
            },
            {
                str(one["user"]): (str(one["configure"]), str(one["write"]), str(one["read"]))
                for one in permissions
            },
            {
                (str(one["user"]), str(one["exchange"])): (str(one["write"]), str(one["read"]))
                for one in topics
            },
            frozenset(
                str(one["name"]) for one in definitions.get("exchanges", []) if one.get("vhost") == VHOST
            ),
        )

    def has_password(self, user: str, password: str) -> bool:
        """Whether a user has this password."""
        algorithm, text = self.hashes.get(user, ("", ""))
        digest = _DIGESTS.get(algorithm)
        try:
            stored = base64.b64decode(text)
        except ValueError:
            return False
        if digest is None:
            return False
        salt = stored[:_SALT]
        return hmac.compare_digest(salt + digest(salt + password.encode()).digest(), stored)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to change: `why` in a sentence, and what rabbitmqctl would be called with."""

    why: str
    command: Literal[
        "add_user", "change_password", "set_user_tags", "set_topic_permissions", "set_permissions"
    ]
    user: str
    arguments: tuple[str, ...] = ()


def changes(user: User, password: str, access: Access) -> list[Change]:
    """What must change on a broker for this user, in the order in which it must be done.

    Routing keys are restricted before the exchange is opened. Entries for exchanges that the role does not
    name are left alone: they only restrict.
    """
    name, wanted = user.name, user.rights
    made: list[Change] = []
    if name not in access.tags:
        made.append(Change(f"user {name} is missing", "add_user", name))
    elif not access.has_password(name, password):
        made.append(Change(f"user {name} has another password", "change_password", name))
    if tags := access.tags.get(name, ()):
        made.append(Change(f"user {name} has tags: {', '.join(tags)}; wanted none", "set_user_tags", name))
    for exchange, patterns in wanted.topics.items():
        have = access.topics.get((name, exchange))
        if have != patterns:
            what = f"user {name}: routing keys on exchange {exchange} (write, read) are {_shown(have)}"
            made.append(
                Change(
                    f"{what}, wanted {_shown(patterns)}", "set_topic_permissions", name, (exchange, *patterns)
                )
            )
    permissions = access.permissions.get(name)
    if permissions != wanted.triple:
        what = f"user {name}: permissions (configure, write, read) are {_shown(permissions)}"
        made.append(Change(f"{what}, wanted {_shown(wanted.triple)}", "set_permissions", name, wanted.triple))
    return made


def missing_exchanges(users: Iterable[User], access: Access) -> list[str]:
    """Exchanges that the users' permissions name and the broker does not have: since 4.3 it refuses these."""
    return sorted({exchange for user in users for exchange in user.rights.topics} - access.exchanges)


def unknown_users(users: Iterable[User], others: Iterable[str], access: Access) -> list[str]:
    """Users that have permissions in the virtual host, but are not in the file, nor among its `others`."""
    known = {user.name for user in users} | set(others)
    return sorted(access.permissions.keys() - known)


def _tags(value: Any) -> tuple[str, ...]:
    """A list since 3.9, comma-separated text before."""
    listed = value.split(",") if isinstance(value, str) else value or ()
    return tuple(str(tag) for tag in listed if tag)


def _shown(patterns: Iterable[str] | None) -> str:
    return " ".join(patterns) if patterns is not None else "not set"
