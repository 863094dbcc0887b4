"""What operators are shown of a rewritten odoo.conf."""

from __future__ import annotations

from pathlib import Path

import pytest

from rehome_consumer.model import Conf, ConfChange, Credentials, Secret
from rehome_consumer.steps.support.conf_changes import LONGEST, changes_of
from tests.support.snapshots import DEDICATED as SERVER

PATH = Path("/srv/odoo.conf")
POOL, DEDICATED = "postgres-pool-1", SERVER.host
OLD, NEW = "an old passw0rd", "a new passw0rd"


def conf(**options: str) -> Conf:
    found = {"db_host": POOL, "db_port": "5432", "db_user": "acme", "db_password": OLD, **options}
    return Conf(PATH, POOL, 5432, Credentials("acme", Secret(OLD)), "acme", {"options": found})


def test_a_password_is_never_shown_and_what_stays_is_left_out() -> None:
    changes = changes_of(conf(), SERVER, Credentials("acme", Secret(NEW)), {})
    assert changes == (
        ConfChange("options", "db_host", POOL, DEDICATED),
        ConfChange("options", "db_password", "***", "***"),
    )
    assert [one.name for one in changes] == ["db_host", "db_password"]


def test_an_option_that_was_not_there_is_told_from_an_empty_one() -> None:
    others = {("queue_job", "jobrunner_db_host"): "db_host", ("options", "db_replica_host"): "db_host"}
    changes = changes_of(
        conf(db_replica_host=""),
        SERVER,
        Credentials("acme", Secret(OLD)),
        others,  # type: ignore[arg-type]
    )
    assert changes[1:] == (
        ConfChange("queue_job", "jobrunner_db_host", None, DEDICATED),
        ConfChange("options", "db_replica_host", "", DEDICATED),
    )
    assert changes[1].name == "queue_job.jobrunner_db_host"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[2J\u202egnp.exe", "\\x1b[2J\\u202egnp.exe"),
        ("postgresql://acme:s3cret@pool/x", "***"),
        ("postgresql://acme:12345/x@pool:5432/x", "***"),
        ("acme:s3cret@pool", "***"),
        ("x" * 10_000, "x" * LONGEST + "..."),
    ],
)
def test_what_a_tenant_wrote_is_made_harmless(written: str, shown: str) -> None:
    others = {("options", "db_replica_host"): "db_host"}
    changes = changes_of(
        conf(db_replica_host=written),
        SERVER,
        Credentials("acme", Secret(OLD)),
        others,  # type: ignore[arg-type]
    )
    assert changes[1].before == shown
