"""Secrets at rest: authenticated encryption with the key of `REHOME_SECRET_KEY`."""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consumer.errors import Refused, SettingsError

_NONCE = 12  # bytes; what AES-GCM asks for
_SHORTEST = 16


class Vault:
    """Locks and unlocks short texts with AES-256-GCM; the key is derived from the setting's text."""

    def __init__(self, key: str | None) -> None:
        """Take the key's text; with None the vault stays shut.

        Raises:
            SettingsError: it is shorter than 16 characters.
        """
        if key is None:
            self._cipher: AESGCM | None = None
            return
        if len(key) < _SHORTEST:
            raise SettingsError(
                f"REHOME_SECRET_KEY has {len(key)} characters; give it at least {_SHORTEST} random ones"
            )
        self._cipher = AESGCM(hashlib.sha256(key.encode()).digest())

    def lock(self, text: str, context: str) -> bytes:
        """Encrypt; `context` says what it belongs to and must be given again to unlock."""
        nonce = os.urandom(_NONCE)
        return nonce + self._open().encrypt(nonce, text.encode(), context.encode())

    def unlock(self, blob: bytes, context: str) -> str:
        """Decrypt.

        Raises:
            Refused: it was locked with another key or for another context, or was altered.
        """
        try:
            return self._open().decrypt(blob[:_NONCE], blob[_NONCE:], context.encode()).decode()
        except InvalidTag:
            raise Refused(
                "a stored secret cannot be read: is REHOME_SECRET_KEY the one it was stored with?"
            ) from None

    def _open(self) -> AESGCM:
        if self._cipher is None:
            raise SettingsError("REHOME_SECRET_KEY (or REHOME_SECRET_KEY_FILE) is needed for this")
        return self._cipher
