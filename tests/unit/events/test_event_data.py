"""The kinds of values: what is masked, cut and refused."""

import re
from typing import Final
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from rehome_events import data as kinds
from rehome_events.data import MAX_MESSAGE, masked
from rehome_events.migration import MigrationFailed, MigrationRolledBack
from rehome_events.parts import Entitlements, Limits


def failure(message: str) -> str:
    return MigrationFailed(
        instance_id=uuid4(),
        step="restore",
        error="RestoreFailed",
        message=message,
        tries=1,
        next="operator",
    ).message


@pytest.mark.parametrize(
    ("message", "masked_message"),
    [
        (
            "could not reach postgres://acme:s3cr%40t@pool:5432/acme",
            "could not reach postgres://acme:***@pool:5432/acme",
        ),
        ("amqp://u:a/b@host fails", "amqp://u:***@host fails"),
        ("host=pool password=s3cret dbname=acme", "host=pool password=*** dbname=acme"),
        ("password='a b c' user=acme", "password=*** user=acme"),
        ("PGPASSWORD=s3cret pg_dump", "PGPASSWORD=*** pg_dump"),
        ("ALTER ROLE acme PASSWORD 's3cret'", "ALTER ROLE acme PASSWORD ***"),
        ('{"db_password": "s3cret", "db_host": "pool"}', '{"db_password": ***, "db_host": "pool"}'),
        ("Authorization: Bearer s3cret", "Authorization: ***"),
        ("token: s3cret", "token: ***"),
        ("no password was given", "no password was given"),
        ("http://odoo:8069/web@2x.png", "http://odoo:8069/web@2x.png"),
    ],
)
def test_what_looks_like_a_secret_is_masked_in_messages(message: str, masked_message: str) -> None:
    assert failure(message) == masked_message


def test_a_long_message_is_cut_and_not_refused() -> None:
    assert len(failure("x" * 10_000)) == MAX_MESSAGE
    assert failure("x" * 10_000).endswith("…")


def test_a_message_loses_its_nul() -> None:
    assert failure("a\x00b") == "ab"


def test_a_payload_cannot_be_changed() -> None:
    data = MigrationFailed(instance_id=uuid4(), step="stop", error="X", message="m", tries=1, next="operator")
    with pytest.raises(ValidationError, match="frozen"):
        data.tries = 2  # type: ignore[misc] # the point of the test


@pytest.mark.parametrize("given", [4, 4.0, "4", "4.0", "4.00"])
def test_a_decimal_is_read_as_number_and_as_text(given: object) -> None:
    assert Entitlements.model_validate({"cpu_limit": given}).cpu_limit == 4.0


@pytest.mark.parametrize("given", [0, -1, "NaN", "inf", 1e9, "four"])
def test_an_impossible_number_of_cores_is_refused(given: object) -> None:
    with pytest.raises(ValidationError):
        Limits.model_validate({"cpu_limit": given})


@pytest.mark.parametrize("size", ["2G", "512M", "1.5g", "8Gi", "8GB", "1073741824"])
def test_an_amount_of_memory_is_read_as_it_is_usually_written(size: str) -> None:
    assert Limits(memory_limit=size).memory_limit == size


@pytest.mark.parametrize("size", ["", "G", "-2G", "2 G", "2X", "2G\n"])
def test_an_amount_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(ValidationError):
        Limits(memory_limit=size)


def test_leftovers_are_masked_too() -> None:
    data = MigrationRolledBack.model_validate(
        {
            "instance_id": str(uuid4()),
            "failed_step": "provision",
            "reason": "x",
            "source": {"id": str(uuid4()), "name": "p", "host": "p", "port": 5432, "kind": "shared"},
            "undone": [],
            "leftovers": ["server at postgres://a:b@c"],
        }
    )
    assert data.leftovers == ("server at postgres://a:***@c",)


OLD_URL = re.compile(r"(?<=://)([^/\s:@]*):(?!\d+/)\S*@")
"""What finds a URL's credentials, in one expression; it looks for the last @ from every user on."""


@given(st.text(alphabet="a1:/@ \n\u2003é", max_size=60))
@example("x://a:1/b@c")
@example("a://b:c@d://e:f@g h://i:@j")
@example("://:@://:@")
def test_credentials_of_urls_are_found_where_one_expression_finds_them(text: str) -> None:
    assert masked(text) == OLD_URL.sub(r"\1:***@", text)


PIECES: Final = (
    "password", "pwd", "SECRET", "Token", "api", "_", "key", "authorization", "pa\u017f\u017fword", "to\u212aen",
    "author\u0131zation", "=", ": ", " ", "'", '"', "x", "é",
)  # fmt: skip
"""Of texts with and without the name of a secret, in letters that `re` takes for others where case does not count."""


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
@example("pa\u017f\u017fword=hunter2")
@example("author\u0131zation: Bearer x")
def test_a_text_is_looked_at_closely_wherever_there_is_something_to_mask(text: str) -> None:
    expected = text
    for pattern, replacement in kinds._SECRETS:
        expected = pattern.sub(replacement, expected)
    assert masked(text) == expected


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["://a:", "://a:@ ", "://", "x://1", "password='", "pwd ", 'token="\\', "authorization: \n"]
)
def test_a_megabyte_made_to_be_slow_is_masked_in_a_moment(piece: str) -> None:
    """Time in proportion to the square of its length would be hours."""
    masked(piece * (1_000_000 // len(piece)))
