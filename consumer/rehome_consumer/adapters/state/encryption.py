"""Secrets at rest: authenticated encryption with the key of `REHOME_SECRET_KEY`."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from rehome_consumer.errors import Refused, SettingsError

_NONCE: Final = 12  # bytes; what AES-GCM asks for
_KEY: Final = 32
_SHORTEST: Final = 16

_VERSION: Final = b"rehome\x00\x02"
"""Prefix of blobs. Those of the first version begin with a nonce: one in 2^64 of them with these bytes."""

# scrypt (RFC 7914): 32 MiB and about 0.1 s for each guess. Every consumer derives the same key from the text alone, so
# the salt is constant: it makes tables computed for other programs useless.
_COST: Final = {"n": 2**15, "r": 8, "p": 1, "maxmem": 64 * 2**20}
_SALT: Final = b"rehome: secrets at rest, version 2"
_AT_REST: Final = b"rehome secrets at rest"
_OTHER: Final = b"rehome: "


class SecretCipher:
    """Encrypts and decrypts short texts with AES-256-GCM; the key is derived from the setting's text by scrypt.

    Texts of the first version, whose key was one SHA-256 of the setting, can still be decrypted.
    """

    def __init__(self, key: str | None) -> None:
        """Take the key's text; with None every use raises SettingsError.

        Raises:
            SettingsError: it is shorter than 16 characters.
        """
        self._master: bytes | None = None
        if key is None:
            return
        if len(key) < _SHORTEST:
            raise SettingsError(
                f"REHOME_SECRET_KEY has {len(key)} characters; give it at least {_SHORTEST} random ones"
            )
        self._master = _stretched(key)
        self._cipher = AESGCM(_derived(self._master, _AT_REST))
        self._first = AESGCM(hashlib.sha256(key.encode()).digest())

    def lock(self, text: str, context: str) -> bytes:
        """Encrypt; `context` says what it belongs to and must be given again to decrypt."""
        self._require_key()
        nonce = os.urandom(_NONCE)
        return _VERSION + nonce + self._cipher.encrypt(nonce, text.encode(), context.encode())

    def unlock(self, blob: bytes, context: str) -> str:
        """Decrypt.

        Raises:
            Refused: it was encrypted with another key or for another context, or was altered.
        """
        self._require_key()
        newer = [(self._cipher, blob.removeprefix(_VERSION))] if blob.startswith(_VERSION) else []
        for cipher, rest in [*newer, (self._first, blob)]:
            try:
                return cipher.decrypt(rest[:_NONCE], rest[_NONCE:], context.encode()).decode()
            except InvalidTag:
                continue
            except ValueError:  # shorter than a nonce
                break
        raise Refused("a stored secret cannot be read: is REHOME_SECRET_KEY the one it was stored with?")

    def subkey(self, purpose: str) -> bytes:
        """A key of 32 bytes for another purpose, such as a MAC: HKDF (RFC 5869) with the purpose's name as label.

        The same for every consumer with this key; it reveals neither the key nor other subkeys.

        Raises:
            SettingsError: there is no key.
        """
        return _derived(self._require_key(), _OTHER + purpose.encode())

    def _require_key(self) -> bytes:
        if self._master is None:
            raise SettingsError("REHOME_SECRET_KEY (or REHOME_SECRET_KEY_FILE) is needed for this")
        return self._master


@lru_cache(maxsize=4)
def _stretched(key: str) -> bytes:
    """Once per process: it is slow on purpose."""
    return hashlib.scrypt(key.encode(), salt=_SALT, dklen=_KEY, **_COST)


def _derived(master: bytes, label: bytes) -> bytes:
    return HKDFExpand(SHA256(), _KEY, label).derive(master)
