"""RULES: what each action of `conf_settings.ACTIONS` does with a value. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from rehome_consumer.model import CONF_UNSET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rehome_consumer.model import LoginPart
    from rehome_consumer.steps.support.conf_settings import Action
    from rehome_consumer.steps.support.relocation import Found, Meaning, Relocation

STRICT: Final = frozenset({"require", "verify-ca", "verify-full"})
"""Values of db_sslmode with which nothing connects without TLS; with the others it does."""
VERIFYING: Final = frozenset({"verify-ca", "verify-full"})
COMMON: Final = frozenset({"template0", "template1", "postgres"})
"""Databases that every server has."""

_URI: Final = re.compile(r"postgres(?:ql)?://", re.IGNORECASE)
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/\[\]-]{1,255}")
_JOB_RUNNER: Final = re.compile(
    r"^[ \t]*(jobrunner_db_\w+)[ \t]*[=:][ \t]*(.*?)[ \t]*$", re.MULTILINE | re.IGNORECASE
)


def _nothing(_found: Found, _value: str, _relocation: Relocation, _meaning: Meaning) -> None:
    """`moved` is compared by `prepare.check_conf`, `always_set` is set in any case, `no_address` names no server."""


def _follows(found: Found, value: str, relocation: Relocation, meaning: Meaning) -> None:
    part = _part(found)
    if value == relocation.new(part):
        return
    if found.setting.place == "environment":
        meaning.variables[found.setting.key] = part
    else:
        meaning.options[found.setting.place, found.setting.key] = part
    if not relocation.was(part, value):
        meaning.warnings.append(
            f"{found.where} is {_shown(part, value)}, not {_owner(part)}; it is given the dedicated server's"
        )


def _follows_the_pool(found: Found, value: str, relocation: Relocation, meaning: Meaning) -> None:
    part = _part(found)
    if value == relocation.new(part):
        return
    if relocation.was(part, value):
        meaning.variables[found.setting.key] = part
    elif found.setting.since.startswith("Odoo"):
        meaning.warnings.append(
            f"{found.where} is {_shown(part, value)}, not {_owner(part)}, and stays; from {found.setting.since} on it "
            "counts more than odoo.conf: remove it unless it is meant for something else"
        )
    elif relocation.names_pool(value):
        meaning.warnings.append(f"{found.where} names the pool, and stays as it is")


def _must_agree(found: Found, value: str, relocation: Relocation, _meaning: Meaning) -> None:
    part = _part(found)
    new = relocation.new(part)
    if new is None and part != "db_host":
        return
    if new is None or (value.casefold() != new.casefold() if part == "db_host" else value != new):
        found.complaints.append(
            f"{found.where} is {_shown(part, value)} and counts more than odoo.conf, so that the move would not take "
            "effect: remove it from the service's arguments, odoo.conf has it"
        )


def _must_be_database(found: Found, value: str, relocation: Relocation, _meaning: Meaning) -> None:
    if value != relocation.database:
        found.complaints.append(
            f"{found.where} is {_shown('db_host', value)}, the record says {relocation.database}; find out which is "
            "right before anything moves"
        )


def _compared_with_tls(found: Found, value: str, relocation: Relocation, meaning: Meaning) -> None:
    if relocation.tls is None or relocation.target is None or value not in STRICT:
        return
    name = relocation.target.name
    if not relocation.tls:
        found.complaints.append(
            f"{found.where} is {value}, and {name} offers no TLS: turn it on there (ssl = on, with a certificate), or "
            "have the customer agree to `prefer`"
        )
    elif value in VERIFYING:
        more = f" in the name {relocation.target.host}" if value == "verify-full" else ""
        meaning.warnings.append(
            f"{found.where} is {value}: the container must know the authority that signed the certificate of {name}"
            f"{more}, which cannot be seen from here; compare it before the move"
        )


def _maybe_missing_database(found: Found, value: str, relocation: Relocation, meaning: Meaning) -> None:
    if value not in COMMON | {relocation.database}:
        meaning.warnings.append(
            f"{found.where} is {_shown('db_host', value)}, which does not move; the dedicated server may not have it"
        )


def _compared_with_version(found: Found, _value: str, relocation: Relocation, meaning: Meaning) -> None:
    if relocation.versions is not None and relocation.versions[0] < relocation.versions[1]:
        here, there = relocation.versions
        meaning.warnings.append(
            f"{found.where} names the programs of Odoo's database manager: the pool is PostgreSQL {here}, the "
            f"dedicated server {there}, which an older pg_dump does not dump"
        )


def _log_database(found: Found, value: str, relocation: Relocation, meaning: Meaning) -> None:
    if _URI.match(value):
        if relocation.names_pool(value):
            meaning.warnings.append(
                f"{found.where} is a URI that names the pool, and stays: log lines go there still"
            )
    elif value not in {"%d", relocation.database}:
        meaning.warnings.append(
            f"{found.where} is {_shown('db_host', value)}, which does not move: Odoo will look for it on the dedicated "
            "server, and log nothing to it"
        )


def _session_database(found: Found, value: str, relocation: Relocation, meaning: Meaning) -> None:
    if not _URI.match(value):
        if value != relocation.database:
            found.complaints.append(
                f"{found.where} is {_shown('db_host', value)}, a database on db_host's server that does not move, and "
                "without it nobody can log in: give it as a complete URI of where it is"
            )
    elif relocation.names_pool(value):
        if _user(value) in {None, relocation.login.user}:
            found.complaints.append(
                f"{found.where} names the pool and the tenant's login, which is closed there, and without it nobody "
                "can log in: give it a database and a login of its own, or remove it (sessions are then in files)"
            )
        else:
            meaning.warnings.append(
                f"{found.where} names the pool, and stays: the users' sessions are there still"
            )


def _server_environment(found: Found, value: str, relocation: Relocation, meaning: Meaning) -> None:
    lines = [(key, text) for key, text in _JOB_RUNNER.findall(value) if text not in CONF_UNSET]
    if lines:
        keys = ", ".join(dict.fromkeys(key.lower() for key, _ in lines))
        found.complaints.append(
            f"{found.where} sets {keys}, so that the job runner would not follow the move: remove it there; it takes "
            "db_host and so on by itself"
        )
    elif relocation.names_pool(value):
        meaning.warnings.append(f"{found.where} names the pool, and stays as it is")


def _must_be_absent(found: Found, value: str, relocation: Relocation, _meaning: Meaning) -> None:
    if value != relocation.new(_part(found)):
        found.complaints.append(
            f"{found.where} is {_shown('db_host', value)}, which every connection goes to whatever odoo.conf says: "
            "remove it from the service's environment"
        )


def _suspicious(found: Found, _value: str, _relocation: Relocation, meaning: Meaning) -> None:
    meaning.warnings.append(
        f"{found.where} can name a server that cannot be seen from here; look whether it is the pool"
    )


def _names_the_file(found: Found, value: str, _relocation: Relocation, meaning: Meaning) -> None:
    if value.rpartition("/")[2] != "odoo.conf":
        meaning.warnings.append(
            f"{found.where} is {_shown('db_host', value)}: if that is not the odoo.conf of the instance's directory, "
            "the move would not take effect"
        )


RULES: Final[Mapping[Action, Callable[[Found, str, Relocation, Meaning], None]]] = {
    "moved": _nothing,
    "always_set": _nothing,
    "no_address": _nothing,
    "follows": _follows,
    "follows_the_pool": _follows_the_pool,
    "must_agree": _must_agree,
    "must_be_database": _must_be_database,
    "compared_with_tls": _compared_with_tls,
    "maybe_missing_database": _maybe_missing_database,
    "compared_with_version": _compared_with_version,
    "log_database": _log_database,
    "session_database": _session_database,
    "server_environment": _server_environment,
    "must_be_absent": _must_be_absent,
    "suspicious": _suspicious,
    "names_the_file": _names_the_file,
}


def _part(found: Found) -> LoginPart:
    part = found.setting.part
    assert part is not None, found.setting.key  # noqa: S101 - a test holds the table to it
    return part


def _owner(part: LoginPart) -> str:
    return "the pool's" if part in ("db_host", "db_port") else "the tenant's"


def _shown(part: LoginPart, value: str) -> str:
    """A value for people: never a password, and nothing that may hold one."""
    if part == "db_password":
        return "another password"
    return value if _PLAIN.fullmatch(value) and not _URI.match(value) else "something that is not shown here"


def _user(uri: str) -> str | None:
    """The user of a PostgreSQL URI; None where there is none."""
    try:
        user = urlsplit(uri).username
    except ValueError:
        return None
    return None if user is None else unquote(user)
