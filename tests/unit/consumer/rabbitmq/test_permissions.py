"""The permissions of roles follow from topology, saga and catalogue."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest

from rehome_consumer.rabbitmq import topology
from rehome_consumer.rabbitmq.access import Access, Change, changes, unknown_users
from rehome_consumer.rabbitmq.permissions import READABLE, ROLES, User, rights
from rehome_events.catalog import CATALOG

CRM = User("crm", "subscriber", ("migration.completed",), password_env="CRM_PASSWORD")
DEFINITIONS = topology.definitions()
QUEUES = [queue["name"] for queue in DEFINITIONS["queues"]]
EXCHANGES = [exchange["name"] for exchange in DEFINITIONS["exchanges"]]


def allowed(pattern: str, names: list[str]) -> set[str]:
    return {name for name in names if re.search(pattern, name)}


def test_only_a_subscriber_may_declare_and_nothing_of_the_saga() -> None:
    for role in ROLES:
        configure = rights(role, "crm", READABLE).configure
        assert allowed(configure, QUEUES + EXCHANGES) == set()
        assert (configure == "^$") == (role != "subscriber")


def test_the_consumer_may_write_to_all_it_publishes_to_and_read_every_handlers_queue() -> None:
    migrator = rights("migrator")
    assert allowed(migrator.write, EXCHANGES) == set(EXCHANGES) - {"billing", "migration.handler"}
    assert allowed(migrator.read, QUEUES) == {name for name in QUEUES if name.startswith("migration.h.")}


def test_every_type_has_one_publisher() -> None:
    types = list(CATALOG)
    written = {
        "billing": allowed(rights("billing").topics["billing"][0], types),
        "rehome": allowed(rights("migrator").topics["migration"][0], types),
    }
    for publisher, names in written.items():
        assert names == {entry.type for entry in CATALOG.values() if entry.published_by == publisher}


def test_an_operator_reads_the_dead_letters_and_writes_to_handlers() -> None:
    operator = rights("operator")
    assert allowed(operator.write, QUEUES + EXCHANGES) == {"migration.handler"}
    assert allowed(operator.read, QUEUES + EXCHANGES) == {"migration.dead"}


def test_a_subscriber_reads_its_keys_and_its_own_queues() -> None:
    crm = rights("subscriber", "crm", ("migration.completed", "migration.failed"))
    assert allowed(crm.topics["migration"][1], [*CATALOG, "#", "migration.*"]) == {
        "migration.completed",
        "migration.failed",
    }
    assert allowed(crm.read, QUEUES + EXCHANGES) == {"migration"}
    assert allowed(crm.write, QUEUES + EXCHANGES) == set()
    own = [
        "sub_crm.news",
        "sub_crm.news.dead",
        "sub_crm-eu.news",
        "sub_crmx.news",
        "sub_shop.news",
        "sub_crm",
    ]
    for pattern in (crm.configure, crm.write, crm.read):
        assert allowed(pattern, own) == {"sub_crm.news", "sub_crm.news.dead"}


def exported(**more: Any) -> dict[str, Any]:
    """What a broker exports when crm is correct."""
    salt = b"salt"
    hashed = base64.b64encode(salt + hashlib.sha256(salt + b"secret").digest()).decode()
    configure, write, read = CRM.rights.triple
    topic_write, topic_read = CRM.rights.topics["migration"]
    scope = {"user": "crm", "vhost": "migration"}
    user = {"name": "crm", "tags": [], "password_hash": hashed}
    return {
        "users": [{**user, "hashing_algorithm": "rabbit_password_hashing_sha256"}],
        "permissions": [{**scope, "configure": configure, "write": write, "read": read}],
        "topic_permissions": [{**scope, "exchange": "migration", "write": topic_write, "read": topic_read}],
        **more,
    }


def test_a_user_that_is_correct_needs_no_change() -> None:
    assert changes(CRM, "secret", Access.of(exported())) == []


def test_the_keys_of_a_new_user_are_restricted_before_the_exchange_is_opened_to_it() -> None:
    commands = [change.command for change in changes(CRM, "secret", Access.of({}))]
    assert commands == ["add_user", "set_topic_permissions", "set_permissions"]


def test_another_password_is_found_and_not_printed() -> None:
    (change,) = changes(CRM, "hidden", Access.of(exported()))
    assert change == Change("user crm has another password", "change_password", "crm")


@pytest.mark.parametrize("text", ["", "not base64!", "c2hvcnQ="])
def test_a_password_hash_of_an_unknown_kind_does_not_match(text: str) -> None:
    user = {
        "name": "crm",
        "tags": [],
        "password_hash": text,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
    }
    assert not Access.of(exported(users=[user])).has_password("crm", "secret")
    assert not Access.of(exported(users=[{**user, "hashing_algorithm": "md5"}])).has_password("crm", "secret")


@pytest.mark.parametrize("tags", [["administrator"], "administrator"])
def test_tags_are_removed_in_whatever_form_they_are_exported(tags: object) -> None:
    (user,) = exported()["users"]
    (change,) = changes(CRM, "secret", Access.of(exported(users=[{**user, "tags": tags}])))
    assert (change.command, change.arguments) == ("set_user_tags", ())


def test_permissions_in_another_virtual_host_are_ignored() -> None:
    other = {"user": "crm", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    there = Access.of(exported(permissions=[*exported()["permissions"], other]))
    assert changes(CRM, "secret", there) == []


def test_users_that_the_file_does_not_name_are_unknown() -> None:
    permissions = [
        {"user": name, "vhost": "migration", "configure": "", "write": "", "read": ""} for name in "ab"
    ]
    there = Access.of(exported(permissions=[*exported()["permissions"], *permissions]))
    assert unknown_users([CRM], ["a"], there) == ["b"]
