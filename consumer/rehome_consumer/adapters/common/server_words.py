"""What a PostgreSQL server says of an error besides its first sentence, without the tenant's data."""

from __future__ import annotations

import re
from typing import Final

# A key, as in: Key (login)=(anna) already exists.
_KEY_VALUE: Final = re.compile(r"=\(.*\)")
# What follows these words in quotes is a name of the tenant's schema; anything else may be data.
_QUOTED: Final = re.compile(
    r"(\b(?:table|relation|column|constraint|index|sequence|view|function|type|schema|role|user|extension|database|"
    r"trigger|collation|configuration|dictionary|parameter|publication|slot|server|policy|rule|operator|class|"
    r"statistics|object|library|file|option)s? |"
    r'\b(?:increase|decrease|raise|reduce|set) (?="[a-z_]+"))?"[^"]*"'  # a setting, quoted since PostgreSQL 17
)
_ROW: Final = "ailing row contains"

# The server is short of something, ends sessions, or met another session: it may pass. Source: PostgreSQL's messages of
# the error classes 08, 40, 53, 55, 57 and 58, and of programs that read a database while it is changed.
_PASSING: Final = re.compile(
    r"terminating connection|server closed the connection|connection to server|could not receive data|"
    r"could not send data|SSL connection has been closed|canceling statement|canceling autovacuum|deadlock detected|"
    r"could not serialize|out of memory|out of shared memory|No space left on device|could not extend file|"
    r"could not write|could not read|could not fsync|Disk quota exceeded|Input/output error|too many clients|"
    r"too many connections|remaining connection slots|the database system is|lock timeout|could not obtain lock|"
    r"could not resize shared memory|could not open relation with OID|cache lookup failed|"
    r"invalid snapshot identifier|snapshot \S+ does not exist|"
    r"pg_dump: error: query failed: ERROR: +relation .* does not exist|tuple concurrently (?:updated|deleted)"
)
_SAID_BY_THE_SERVER: Final = re.compile(r"\bERROR: ")


def detail(text: str) -> str:
    """A DETAIL without the tenant's data; empty where it is nothing else."""
    if _ROW in text:
        return ""
    return _QUOTED.sub(lambda found: found[0] if found[1] else '"..."', _KEY_VALUE.sub("=(...)", text))


def is_final(text: str) -> bool:
    """Whether a client program's last lines report what a server says about a definition or data: it stays so.

    A server whose messages are not in English is believed to mean it: then a move is undone that might have passed.
    """
    return bool(_SAID_BY_THE_SERVER.search(text)) and not _PASSING.search(text)
