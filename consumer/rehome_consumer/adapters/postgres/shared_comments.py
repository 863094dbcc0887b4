"""Comments on databases and roles: the servers' own catalogue, in the encoding of whichever database wrote them.

Read from a database of another encoding they may be no text at all. So they are read as bytes (`textsend`).
"""

from __future__ import annotations

from rehome_consumer.errors import Incompatible


def text_of(raw: bytes | None) -> str | None:
    """The comment; what is no UTF-8 becomes a mark, which no tag of rehome's has."""
    return None if raw is None else raw.decode(errors="replace")


def carried(raw: bytes | None, what: str) -> str | None:
    """The comment, to be written again on another server.

    Args:
        raw: as it was read.
        what: what it is on, for the error.

    Raises:
        Incompatible: it was written in another encoding.
    """
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        raise Incompatible(
            f"the comment on {what} is no UTF-8: it was written in a database of another encoding. "
            "Write it again in ASCII (COMMENT ON ...), or set it to NULL"
        ) from None
