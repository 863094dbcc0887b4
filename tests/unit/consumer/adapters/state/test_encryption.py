"""Secrets at rest: how keys are derived, and that secrets of the release before can be read."""

from __future__ import annotations

import hashlib
import hmac
import os
from base64 import b64decode

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rehome_consumer.adapters.state import encryption
from rehome_consumer.adapters.state.encryption import SecretCipher
from rehome_consumer.errors import Refused, SettingsError

KEY = "sixteen letters!"
OF_THE_FIRST_VERSION = b64decode("AAECAwQFBgcICQoLEHceYxhov8vEvA5DMKuUcR91NGgXnw==")
"""The text `secret` for the context `migration 1`, as the release before encrypted it."""


def by_one_sha256(text: str, context: str, nonce: bytes | None = None) -> bytes:
    nonce = nonce or os.urandom(12)
    return nonce + AESGCM(hashlib.sha256(KEY.encode()).digest()).encrypt(
        nonce, text.encode(), context.encode()
    )


def test_a_secret_is_decrypted_with_the_same_key_and_context() -> None:
    blob = SecretCipher(KEY).lock("secret é", "migration 1")
    assert SecretCipher(KEY).unlock(blob, "migration 1") == "secret é"
    assert b"secret" not in blob


def test_a_secret_of_the_release_before_is_still_decrypted() -> None:
    assert SecretCipher(KEY).unlock(OF_THE_FIRST_VERSION, "migration 1") == "secret"


def test_a_secret_of_the_release_before_is_decrypted_where_its_nonce_looks_like_the_new_prefix() -> None:
    blob = by_one_sha256("secret", "migration 1", encryption._VERSION + os.urandom(4))
    assert SecretCipher(KEY).unlock(blob, "migration 1") == "secret"


def test_a_key_is_not_one_sha256_of_its_text() -> None:
    """Else 16 characters could be guessed a billion times a second."""
    blob = SecretCipher(KEY).lock("secret", "migration 1").removeprefix(encryption._VERSION)
    with pytest.raises(InvalidTag):
        AESGCM(hashlib.sha256(KEY.encode()).digest()).decrypt(blob[:12], blob[12:], b"migration 1")


def test_a_guess_takes_32_mebibytes() -> None:
    assert 128 * encryption._COST["n"] * encryption._COST["r"] == 32 * 2**20


@pytest.mark.parametrize("blob", [b"", b"short", encryption._VERSION, encryption._VERSION + b"x", b"x" * 100])
def test_what_is_no_secret_is_refused(blob: bytes) -> None:
    with pytest.raises(Refused, match="is REHOME_SECRET_KEY the one it was stored with"):
        SecretCipher(KEY).unlock(blob, "migration 1")


@pytest.mark.parametrize(
    "blob",
    [SecretCipher(KEY).lock("secret", "migration 1"), by_one_sha256("secret", "migration 1")],
    ids=["by scrypt", "by one SHA-256"],
)
def test_another_key_another_context_and_an_altered_secret_are_refused(blob: bytes) -> None:
    for other, context, text in (
        (KEY + "x", "migration 1", blob),
        (KEY, "migration 2", blob),
        (KEY, "migration 1", blob[:-1] + bytes([blob[-1] ^ 1])),
    ):
        with pytest.raises(Refused, match="a stored secret cannot be read"):
            SecretCipher(other).unlock(text, context)


def test_subkeys_are_of_their_purpose_and_key() -> None:
    made = {
        SecretCipher(key).subkey(purpose)
        for key in (KEY, KEY + "x")
        for purpose in ("backups", "tags", "secrets at rest")
    }
    assert len(made) == 6
    assert all(len(one) == 32 for one in made)
    assert SecretCipher(KEY).subkey("backups") == SecretCipher(KEY).subkey("backups")


def test_subkeys_are_those_of_rfc_5869() -> None:
    """HKDF-Expand for one block: HMAC of the label and the number 1."""
    master = hashlib.scrypt(KEY.encode(), salt=encryption._SALT, n=2**15, r=8, p=1, maxmem=2**26, dklen=32)
    assert SecretCipher(KEY).subkey("backups") == hmac.digest(master, b"rehome: backups\x01", "sha256")


def test_a_key_that_is_short_or_missing_is_refused() -> None:
    with pytest.raises(SettingsError, match="has 15 characters; give it at least 16"):
        SecretCipher("x" * 15)
    for use in (
        lambda: SecretCipher(None).lock("a", "b"),
        lambda: SecretCipher(None).unlock(b"a", "b"),
        lambda: SecretCipher(None).subkey("a"),
    ):
        with pytest.raises(SettingsError, match="is needed for this"):
            use()
