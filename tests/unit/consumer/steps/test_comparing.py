"""What is compared of database and role themselves."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from rehome_consumer.model import DatabaseFacts, RoleAttributes
from rehome_consumer.steps.support.comparing import fact_differences

FACTS = DatabaseFacts(
    name="acme",
    owner="odoo",
    encoding="UTF8",
    collation="C",
    ctype="C",
    provider="c",
    locale=None,
    bytes=1,
    connection_limit=-1,
    extensions={},
    acl=(("", "CONNECT", False), ("odoo", "CREATE", False)),
    comment="of Acme",
)
OTHERS: dict[str, Any] = {
    "create_databases": True,
    "inherit": False,
    "connection_limit": 3,
    "valid_until": "2091-01-01",
    "comment": "x",
}


def differences(**changed: Any) -> list[str]:
    return list(fact_differences(FACTS, replace(FACTS, **changed)))


def test_the_same_facts_do_not_differ() -> None:
    assert differences(owner="odoo", bytes=7) == []


@pytest.mark.parametrize("name", [field.name for field in fields(RoleAttributes)])
def test_each_attribute_of_the_role_is_compared_and_named(name: str) -> None:
    (found,) = differences(role=RoleAttributes(**{name: OTHERS[name]}))
    assert found.startswith(f"{name.replace('_', ' ')} of the tenant's role: ")


def test_the_comment_on_the_database_is_compared() -> None:
    assert differences(comment=None) == [
        "comment on the database: 'of Acme' on the source, None on the target"
    ]


def test_privileges_on_the_database_are_compared() -> None:
    assert differences(acl=(("odoo", "CREATE", False),)) == [
        "privilege CONNECT on the database for PUBLIC: missing on the target"
    ]
