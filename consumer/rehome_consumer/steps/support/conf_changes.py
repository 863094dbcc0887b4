"""What a rewrite changes of odoo.conf, as operators are shown it: no password, nothing endless, nothing invisible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from rehome_consumer.model import ConfChange, LoginPart
from rehome_consumer.steps.support.relocation import value_of
from rehome_events.data import masked
from rehome_events.printable import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rehome_consumer.model import Conf, ConfKey, Credentials, Server

LONGEST: Final = 200
"""Characters of a value, which may be the tenant's, that are shown."""
HIDDEN: Final = "***"


def changes_of(
    conf: Conf, target: Server, login: Credentials, others: Mapping[ConfKey, LoginPart]
) -> tuple[ConfChange, ...]:
    """What the file gets that it does not have: the four options, and those of `others`."""
    parts: tuple[LoginPart, ...] = get_args(LoginPart)
    wanted: dict[ConfKey, LoginPart] = {("options", part): part for part in parts} | dict(others)
    found = []
    for (section, key), part in wanted.items():
        before, after = conf.sections.get(section, {}).get(key), value_of(part, target, login)
        if before != after:
            old = None if before is None else _shown(part, before)
            found.append(ConfChange(section, key, old, _shown(part, after)))
    return tuple(found)


def _shown(part: LoginPart, value: str) -> str:
    # What looks like an address with a login is no host, port or name of a role, and may have a password.
    if part == "db_password" or "@" in value or "://" in value:
        return HIDDEN
    text = masked(visible(value[: 2 * LONGEST]))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
