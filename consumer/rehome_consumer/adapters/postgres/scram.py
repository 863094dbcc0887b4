"""A password as PostgreSQL stores it, made by the client: the password itself never reaches the server's log."""

from __future__ import annotations

import hashlib
import hmac
import os
import stringprep
import unicodedata
from base64 import b64encode
from typing import Final

ITERATIONS: Final = 4096
"""PostgreSQL's own number (SCRAM_SHA_256_DEFAULT_ITERATIONS, scram-common.h)."""

_SALT_BYTES: Final = 16  # SCRAM_DEFAULT_SALT_LEN

# RFC 4013, section 2.3.
_PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def verifier(password: str, salt: bytes | None = None, *, iterations: int = ITERATIONS) -> str:
    """`SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` (RFC 5803), for `PASSWORD '...'`.

    Args:
        password: in clear text.
        salt: 16 bytes; random by default.
        iterations: rounds of hashing, which make guesses expensive, and every login too.
    """
    salt = os.urandom(_SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", _prepared(password).encode(), salt, iterations)
    stored = hashlib.sha256(_keyed(salted, b"Client Key")).digest()
    server = _keyed(salted, b"Server Key")
    return f"SCRAM-SHA-256${iterations}:{_text(salt)}${_text(stored)}:{_text(server)}"


def _prepared(password: str) -> str:
    """SASLprep (RFC 4013). As in PostgreSQL, ASCII and what SASLprep forbids stays as it is."""
    if password.isascii():
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in password
        if not stringprep.in_table_b1(char)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    if not normal or any(forbids(char) for char in normal for forbids in _PROHIBITED):
        return password
    if any(map(stringprep.in_table_d1, normal)):  # right-to-left text, RFC 3454 section 6
        ends = stringprep.in_table_d1(normal[0]) and stringprep.in_table_d1(normal[-1])
        if any(map(stringprep.in_table_d2, normal)) or not ends:
            return password
    return normal


def _keyed(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _text(value: bytes) -> str:
    return b64encode(value).decode()
