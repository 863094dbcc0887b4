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

# The server is short of something, ends sessions, or met another session: it may pass. Source: the sentences of
# PostgreSQL's error classes 08, 40, 53, 55, 57 and 58, and those of programs that read a database while it is changed.
# A sentence of a tenant's own function may have such words in it, too: those must be its first.
_PASSING: Final = re.compile(
    r"terminating connection|server closed the connection|connection to server|could not receive data|"
    r"could not send data|SSL connection has been closed|canceling statement|canceling autovacuum|deadlock detected|"
    r"could not serialize|out of memory|out of shared memory|could not extend file|could not write|could not read|"
    r"could not fsync|sorry, too many clients|too many connections|remaining connection slots|the database system is|"
    r"could not obtain lock|could not resize shared memory|could not open relation with OID|cache lookup failed|"
    r"invalid snapshot identifier|snapshot \S+ does not exist|tuple concurrently (?:updated|deleted)|"
    r"current transaction is aborted"  # what another line says is why
)
# The system's words, at the end of whatever the server wanted to do.
_SYSTEM_IS_SHORT: Final = re.compile(
    r": (?:No space left on device|Disk quota exceeded|Input/output error|Too many open files(?: in system)?|"
    r"Cannot allocate memory)$"
)
# A table was dropped between pg_dump's list and its look.
_DROPPED_MEANWHILE: Final = re.compile(r"^.*pg_dump: error: query failed: ERROR: +relation .* does not exist")
# As in: SQL function "plain" during inlining; PL/pgSQL function wrapped(text) line 1 at RETURN.
_FUNCTION: Final = re.compile(
    r'^(?:SQL function "([^"]+)"|PL/pgSQL function ([^\s(]+\([^)\n]{0,200}\)))', re.MULTILINE
)
_SAID_BY_THE_SERVER: Final = re.compile(r"\b(?:error|detail): .*?\bERROR: +")
_NAME: Final = re.compile(r'"[^"]*(?:"|$)')


def detail(text: str) -> str:
    """A DETAIL without the tenant's data; empty where it is nothing else."""
    if _ROW in text:
        return ""
    return _QUOTED.sub(lambda found: found[0] if found[1] else '"..."', _KEY_VALUE.sub("=(...)", text))


def functions(context: str) -> list[str]:
    """The functions that a CONTEXT names, innermost first, each once and 5 at most, as `function plain(text)`."""
    return list(dict.fromkeys(f"function {found[1] or found[2]}" for found in _FUNCTION.finditer(context)))[
        :5
    ]


def is_final(text: str) -> bool:
    """Whether a client program's last lines report what a server says about a definition or data: it stays so.

    A program with several sessions may report an error of each: one that stays is enough, whatever the others met.

    Sessions ask for English (`short_lived_roles.create`), so that these words are the server's.

    Args:
        text: the lines, with ` | ` between them.
    """
    return any(_stays(_NAME.sub('"..."', line)) for line in text.split(" | "))


def _stays(line: str) -> bool:
    """Of one line, without the names in it."""
    said = _SAID_BY_THE_SERVER.search(line)
    if said is None or _DROPPED_MEANWHILE.match(line):
        return False
    sentence = line[said.end() :]
    return not _PASSING.match(sentence) and not _SYSTEM_IS_SHORT.search(sentence)
