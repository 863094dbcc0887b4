"""pg_hba.conf as the server reads it: the first line that fits decides."""

from __future__ import annotations

import pytest

from rehome_consumer.adapters.postgres.login_rules import Client, Rule, is_let_in

METHODS = frozenset({"scram-sha-256", "md5"})
OURS = Client("rehome_0_restore", ("rehome_0_restore", "odoo_acme"), "10.1.2.3", encrypted=False)
OVER_TLS = Client(OURS.role, OURS.groups, "fd00::7", encrypted=True)
FROM_SOMEWHERE = Client("odoo_acme", ("odoo_acme",))


def rules(text: str) -> list[Rule]:
    """Lines of a file, as pg_hba_file_rules shows them."""
    found = []
    for line in text.strip().split(";"):
        kind, databases, users, address, *mask, method = line.split()
        found.append(
            Rule(
                kind,
                tuple(databases.split(",")),
                tuple(users.split(",")),
                None if address == "-" else address,
                mask[0] if mask else None,
                method,
            )
        )
    return found


@pytest.mark.parametrize(
    "text",
    [
        "host all all all scram-sha-256",
        "host all all 0.0.0.0 0.0.0.0 md5",
        "host acme +odoo_acme 10.0.0.0 255.0.0.0 scram-sha-256",
        "hostnossl acme,other /^rehome_[0-9a-f]+_ all scram-sha-256",
        "host /^ac all samenet scram-sha-256",
        "host all all node-7.internal scram-sha-256",
        "local all all - peer; hostssl all all all reject; host all all all scram-sha-256",
        "host all all 10.9.0.0 255.255.0.0 reject; host all all 10.1.0.0 255.255.0.0 scram-sha-256",
        "host all odoo_acme all reject; host all all all scram-sha-256",
        "host sameuser all all reject; host all all all scram-sha-256",
        "host /( all all scram-sha-256",
    ],
)
def test_who_is_let_in(text: str) -> None:
    assert is_let_in(rules(text), "acme", OURS, METHODS)


@pytest.mark.parametrize(
    "text",
    [
        "local all all - scram-sha-256",
        "host all odoo_acme all scram-sha-256",
        "host all all 127.0.0.1 255.255.255.255 scram-sha-256",
        "host all all ::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff scram-sha-256",
        "host other all all scram-sha-256",
        "host replication all all scram-sha-256",
        "hostssl all all all scram-sha-256",
        "hostgssenc all all all scram-sha-256",
        "host all all all cert",
        "host all all all reject; host all all all scram-sha-256",
        "host all +odoo_acme 0.0.0.0 0.0.0.0 reject; host all all all scram-sha-256",
        "host samerole all all scram-sha-256",
    ],
)
def test_who_is_kept_out(text: str) -> None:
    assert not is_let_in(rules(text), "acme", OURS, METHODS)


def test_encryption_and_the_sixth_version_are_told_apart() -> None:
    assert is_let_in(rules("hostssl all all fd00:: ffff:: scram-sha-256"), "acme", OVER_TLS, METHODS)
    assert not is_let_in(rules("hostnossl all all all scram-sha-256"), "acme", OVER_TLS, METHODS)
    assert not is_let_in(rules("host all all 0.0.0.0 0.0.0.0 scram-sha-256"), "acme", OVER_TLS, METHODS)


@pytest.mark.parametrize(
    ("text", "let_in"),
    [
        ("host acme odoo_acme 10.0.0.0 255.0.0.0 scram-sha-256", True),
        ("hostnossl all all all reject; hostssl all all all scram-sha-256", True),
        ("host all all 0.0.0.0 0.0.0.0 reject; host all all :: :: scram-sha-256", True),
        ("host all /( all reject; host all all all scram-sha-256", True),
        ("hostssl all all all reject; hostnossl all all all reject; host all all +x reject", False),
        ("hostssl all all 10.0.0.0 255.0.0.0 scram-sha-256", True),
        ("host all all 10.0.0.0 255.0.0.0 reject; host all all 172.16.0.0 255.240.0.0 scram-sha-256", True),
        ("host all all all reject; host all all 10.0.0.0 255.0.0.0 scram-sha-256", False),
        ("host all +pool all scram-sha-256", False),
        ("host postgres all all scram-sha-256", False),
    ],
)
def test_from_an_address_that_is_not_known_any_line_for_some_may_be_the_one(text: str, let_in: bool) -> None:
    assert is_let_in(rules(text), "acme", FROM_SOMEWHERE, METHODS) is let_in
