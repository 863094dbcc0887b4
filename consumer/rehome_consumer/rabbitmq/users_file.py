"""The file that lists the wanted users of the broker. It names where passwords are, and holds none."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rehome_consumer.errors import SettingsError
from rehome_consumer.rabbitmq.permissions import READABLE, ROLES, User
from rehome_consumer.settings import variable

# Safe in a regular expression, in a shell and as `team` of the subscriber kit; no dot, which ends a prefix.
_NAME: Final = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST: Final = 64
_PRINTABLE: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
_KEYS: Final = ("name", "role", "keys", "password_env", "password_file")


@dataclass(frozen=True, slots=True)
class UsersFile:
    """Its content.

    Attributes:
        users: those it describes.
        others: further users that may have access to the virtual host, such as an administrator.
    """

    users: tuple[User, ...]
    others: tuple[str, ...] = ()


def read_users(path: Path) -> UsersFile:
    """Read a file of users.

    Raises:
        SettingsError: it cannot be read, or something in it is wrong; says where.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: {error}") from error
    _refuse_unknown(document, ("user", "others"), str(path))
    entries = document.get("user", [])
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise SettingsError(f"{path}: write one [[user]] table for each user")
    users = tuple(_user(entry, f"{path}: user {number}", path) for number, entry in enumerate(entries, 1))
    names = [user.name for user in users]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"{path}: user {', '.join(twice)} is listed twice")
    return UsersFile(users, _texts(document, "others", str(path)))


def password_of(user: User) -> str:
    """Read a user's password from where the file says it is.

    Raises:
        SettingsError: it is missing, or holds what RabbitMQ's tools would drop or alter; never quotes it.
    """
    if user.password_env is not None:
        where = f"password of user {user.name} (environment variable {user.password_env})"
        secret = variable(user.password_env) or ""
    else:
        where = f"password of user {user.name} (file {user.password_file})"
        try:
            secret = Path(user.password_file or "").read_bytes().decode("latin-1").removesuffix("\n")
        except OSError as error:
            raise SettingsError(f"{where}: {error.strerror or error}") from error
    if not secret:
        raise SettingsError(f"{where} is missing or empty")
    if not _PRINTABLE.fullmatch(secret):
        # rabbitmqctl reads a line, strips blanks, and decodes other bytes by its locale.
        raise SettingsError(f"{where}: use printable ASCII characters on one line, no blank at either end")
    return secret


def _user(entry: dict[str, Any], where: str, path: Path) -> User:
    _refuse_unknown(entry, _KEYS, where)
    name = _text(entry, "name", where)
    if name is None or not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise SettingsError(
            f"{where}: name must be lower-case letters and digits, - or _ between them, at most {_LONGEST}"
        )
    where = f"{path}: user {name}"
    if name == "guest":
        raise SettingsError(f"{where}: guest is RabbitMQ's default user, with a well-known password")
    role = _text(entry, "role", where)
    if role not in ROLES:
        raise SettingsError(f"{where}: role must be one of {', '.join(ROLES)}")
    env, file = _text(entry, "password_env", where), _text(entry, "password_file", where)
    if (env is None) == (file is None):
        raise SettingsError(f"{where}: say where the password is, either password_env or password_file")
    if env is not None and not _VARIABLE.fullmatch(env):
        raise SettingsError(f"{where}: password_env must be the name of an environment variable")
    if file is not None:
        if "\0" in file:
            raise SettingsError(f"{where}: password_file contains NUL, which no path may")
        file = str(path.absolute().parent / file)
    return User(name, role, _keys(entry, role, where), env, file)


def _keys(entry: dict[str, Any], role: str, where: str) -> tuple[str, ...]:
    """The types that a subscriber may see."""
    if role != "subscriber":
        if "keys" in entry:
            raise SettingsError(f"{where}: keys are for subscribers only; the role {role} has fixed ones")
        return ()
    keys = _texts(entry, "keys", where)
    if not keys:
        raise SettingsError(f"{where}: say in keys which types it may see, of {', '.join(READABLE)}")
    if unknown := [key for key in keys if key not in READABLE]:
        raise SettingsError(
            f"{where}: {', '.join(map(ascii, unknown))} in keys is not a type that a subscriber may see; "
            f"those are {', '.join(READABLE)}"
        )
    return tuple(dict.fromkeys(keys))


def _refuse_unknown(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    if unknown := [ascii(key) for key in table if key not in known]:
        raise SettingsError(f"{where}: unknown {', '.join(unknown)}; there are {', '.join(known)}")


def _text(table: dict[str, Any], key: str, where: str) -> str | None:
    value = table.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise SettingsError(f"{where}: {key} must be text")
    return value


def _texts(table: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise SettingsError(f"{where}: {key} must be a list of texts")
    return tuple(value)
