"""Password verifiers as PostgreSQL stores them."""

from __future__ import annotations

from base64 import b64decode

import pytest

from rehome_consumer.adapters.postgres.scram import verifier


def test_the_verifier_of_the_standards_example() -> None:
    """RFC 7677, section 3: user `user`, password `pencil`; the signature there follows from this server key."""
    salt = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    made = verifier("pencil", salt)
    assert made == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I\u00adX", "IX"),  # soft hyphen: mapped to nothing (RFC 4013, section 3)
        ("\u00aa", "a"),  # NFKC
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),  # a space outside of ASCII
    ],
)
def test_passwords_that_saslprep_makes_equal_have_the_same_verifier(one: str, other: str) -> None:
    assert verifier(one, b"salt") == verifier(other, b"salt")


@pytest.mark.parametrize("password", ["tab\there", "é\u0007", "\u0627\u0031é", "\ue000é", "\u00ad"])
def test_passwords_that_saslprep_forbids_are_used_as_they_are(password: str) -> None:
    assert verifier(password, b"salt").startswith("SCRAM-SHA-256$4096:")


def test_two_verifiers_of_one_password_differ() -> None:
    assert verifier("pencil") != verifier("pencil")
