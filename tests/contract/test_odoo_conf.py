"""Port `OdooConf`, held by the fake and by real files alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import pytest

from rehome_consumer.adapters.odoo.conf import OdooConfFiles
from rehome_consumer.errors import ConfUnusable
from rehome_consumer.model import Credentials, Instance, Secret
from tests.fakes.odoo_conf import FakeOdooConf

if TYPE_CHECKING:
    from pathlib import Path

    from rehome_consumer.model import ConfKey, LoginPart
    from rehome_consumer.ports import steps

ACME = Instance(UUID(int=0xACE << 100, version=4), UUID(int=1), "Acme", "running", "acme")
ELSEWHERE = Credentials("odoo_new", Secret("p%(x)s'\"$;=#:é"))

CONF = b"""\
; The customer's own remarks stay.
[options]
Admin_Passwd = $pbkdf2-sha512$25000$x
DB_HOST: postgres-pool-1
db_port =5432\x20\x20
# db_host = commented
addons_path = /bitnami/odoo/addons,
    db_host = /not/an/option
db_user=odoo_acme
db_password = s3cr%et;#='"

[queue_job]
db_host = another section
channels = root:2"""

REWRITTEN = b"""\
; The customer's own remarks stay.
[options]
Admin_Passwd = $pbkdf2-sha512$25000$x
DB_HOST: postgres-dedicated-1
db_port =6432\x20\x20
# db_host = commented
addons_path = /bitnami/odoo/addons,
    db_host = /not/an/option
db_user=odoo_new
db_password = p%(x)s'"$;=#:\xc3\xa9

[queue_job]
db_host = another section
channels = root:2"""


class Storage(Protocol):
    """What the suite needs besides the port itself."""

    @property
    def conf(self) -> steps.OdooConf: ...

    def put(self, data: bytes) -> None: ...

    def files(self) -> dict[str, bytes]:
        """Every file in the directory of Acme's odoo.conf, by name."""
        ...


class FakeStorage:
    def __init__(self) -> None:
        self.conf = FakeOdooConf()

    def put(self, data: bytes) -> None:
        self.conf.files[self.conf.data_root / ACME.directory / "conf" / "odoo.conf"] = data

    def files(self) -> dict[str, bytes]:
        return {path.name: data for path, data in self.conf.files.items()}


class RealStorage:
    def __init__(self, root: Path) -> None:
        self.conf = OdooConfFiles(root)
        self.directory = root / ACME.directory / "conf"
        self.directory.mkdir(parents=True)

    def put(self, data: bytes) -> None:
        (self.directory / "odoo.conf").write_bytes(data)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}


@pytest.fixture(params=["fake", "files"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return FakeStorage() if request.param == "fake" else RealStorage(tmp_path)


async def rewrite(storage: Storage) -> tuple[str, ...]:
    return await storage.conf.rewrite(ACME, "postgres-dedicated-1", 6432, ELSEWHERE)


async def test_it_is_read_as_odoo_reads_it(storage: Storage) -> None:
    storage.put(CONF)
    conf = await storage.conf.read(ACME)
    assert conf.path.parts[-3:] == (ACME.directory, "conf", "odoo.conf")
    assert (conf.host, conf.port, conf.database) == ("postgres-pool-1", 5432, None)
    assert conf.credentials == Credentials("odoo_acme", Secret("s3cr%et;#='\""))


async def test_the_database_and_a_port_left_out_are_read_as_odoo_takes_them(storage: Storage) -> None:
    storage.put(b"[options]\ndb_host=h\ndb_user=u\ndb_password=p\ndb_name = acme\ndb_port = False\n")
    conf = await storage.conf.read(ACME)
    assert (conf.port, conf.database) == (5432, "acme")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "no section"),
        (b"[option]\ndb_host = s3cret\n", "no section"),
        (b"db_password = s3cret\n[options]\n", "line 1: something appears above"),
        (b"\xef\xbb\xbf[options]\ndb_password = s3cret\n", "byte-order mark"),
        (b"[options]\ndb_password = s3cret\ndb_password = s3cret\n", "db_password appears twice"),
        (b"[options]\nx = 1\n[options]\ndb_password = s3cret\n", "appears twice"),
        (b"[options]\ns3cret\n", "line 2"),
        (b"[options]\ndb_password = s3cret\xff\n", "not UTF-8"),
        (b"[options]\ndb_host = h\ndb_user = u\ndb_password = False\n", "db_password not set"),
        (b"[options]\n", "db_host, db_user, db_password not set"),
        (b"[options]\ndb_host = h\ndb_user = u\ndb_password = s3cret\ndb_port = 5x\n", "db_port"),
        (b"[options]\ndb_host = h\ndb_user = u\ndb_password = s3cret\n  more\n", "several lines"),
    ],
)
async def test_an_unusable_file_is_refused_by_name_without_its_contents(
    storage: Storage, data: bytes, complaint: str
) -> None:
    storage.put(data)
    with pytest.raises(ConfUnusable, match=r"odoo\.conf") as caught:
        await storage.conf.read(ACME)
    assert complaint in str(caught.value)
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_a_missing_file_is_refused_by_every_method_that_needs_it(storage: Storage) -> None:
    for use in (storage.conf.read(ACME), storage.conf.check_writable(ACME), storage.conf.back_up(ACME, "t")):
        with pytest.raises(ConfUnusable, match="not there"):
            await use
    with pytest.raises(ConfUnusable, match="not there"):
        await rewrite(storage)
    assert storage.files() == {}


async def test_a_check_changes_nothing(storage: Storage) -> None:
    storage.put(CONF)
    await storage.conf.check_writable(ACME)
    assert storage.files() == {"odoo.conf": CONF}


async def test_a_rewrite_replaces_four_values_and_no_other_byte(storage: Storage) -> None:
    storage.put(CONF)
    changed = await rewrite(storage)
    assert changed == ("db_host", "db_port", "db_user", "db_password")
    assert storage.files() == {"odoo.conf": REWRITTEN}


async def test_what_a_rewrite_wrote_is_read_back(storage: Storage) -> None:
    storage.put(CONF)
    await rewrite(storage)
    conf = await storage.conf.read(ACME)
    assert (conf.host, conf.port, conf.credentials) == ("postgres-dedicated-1", 6432, ELSEWHERE)


async def test_a_second_rewrite_changes_nothing(storage: Storage) -> None:
    storage.put(CONF)
    await rewrite(storage)
    assert await rewrite(storage) == ()
    assert storage.files() == {"odoo.conf": REWRITTEN}


async def test_a_rewrite_reports_only_the_keys_that_changed(storage: Storage) -> None:
    storage.put(CONF)
    login = (await storage.conf.read(ACME)).credentials
    assert await storage.conf.rewrite(ACME, "postgres-dedicated-1", 5432, login) == ("db_host",)


JOBS = CONF.replace(b"db_user=", b"Db_Replica_Port\t= 5432\ndb_user=").replace(
    b"channels = root:2",
    b"channels = root:2,\n   jobrunner_db_host = mail:1\nJobRunner_DB_Host=postgres-pool-1 \n"
    b"jobrunner_db_password:s3cr%et;#='\"\n; end\n",
)
FOLLOWING: dict[ConfKey, LoginPart] = {
    ("options", "db_replica_port"): "db_port",
    ("queue_job", "jobrunner_db_host"): "db_host",
    ("queue_job", "jobrunner_db_password"): "db_password",
    ("queue_job", "jobrunner_db_user"): "db_user",
}


async def follow(storage: Storage) -> tuple[str, ...]:
    return await storage.conf.rewrite(ACME, "postgres-dedicated-1", 6432, ELSEWHERE, FOLLOWING)


async def test_options_of_other_sections_take_the_same_values_and_no_other_byte_changes(
    storage: Storage,
) -> None:
    storage.put(JOBS)
    assert set(await follow(storage)) == {
        "db_host",
        "db_port",
        "db_user",
        "db_password",
        "db_replica_port",
        "queue_job.jobrunner_db_host",
        "queue_job.jobrunner_db_password",
        "queue_job.jobrunner_db_user",
    }
    wanted = (
        JOBS.replace(b"postgres-pool-1", b"postgres-dedicated-1")
        .replace(b"5432", b"6432")
        .replace(b"odoo_acme", b"odoo_new")
        .replace(b"s3cr%et;#='\"", ELSEWHERE.password.reveal().encode())
        .replace(b"\n; end", b"\njobrunner_db_user = odoo_new\n; end")
    )
    assert storage.files() == {"odoo.conf": wanted}
    assert await follow(storage) == ()
    assert storage.files() == {"odoo.conf": wanted}


async def test_all_sections_are_read_as_odoo_reads_them(storage: Storage) -> None:
    storage.put(JOBS + b"[DEFAULT]\nx = 1\n")
    sections = (await storage.conf.read(ACME)).sections
    assert sections["queue_job"] == {
        "db_host": "another section",
        "channels": "root:2,\njobrunner_db_host = mail:1",
        "jobrunner_db_host": "postgres-pool-1",
        "jobrunner_db_password": "s3cr%et;#='\"",
        "x": "1",
    }
    assert sections["options"]["db_replica_port"] == "5432"
    assert "s3cr" not in repr(await storage.conf.read(ACME))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (JOBS.replace(b"[queue_job]", b"[other]"), "it has no section .queue_job. any more"),
        (
            JOBS.replace(b"postgres-pool-1 \n", b"a,\n    b\n"),
            "queue_job.jobrunner_db_host goes over several lines",
        ),
    ],
)
async def test_a_file_in_which_they_cannot_be_set_is_left_as_it_is(
    storage: Storage, data: bytes, complaint: str
) -> None:
    storage.put(data)
    with pytest.raises(ConfUnusable, match=complaint):
        await follow(storage)
    assert storage.files() == {"odoo.conf": data}


@pytest.mark.parametrize(
    "password",
    ["", "s3cret\n", "s3\rcret", " s3cret", "s3cret\t", "s3cret\0", "False", "None", "s3cret\ud800"],
)
async def test_a_password_that_odoo_would_not_read_back_is_refused_and_not_shown(
    storage: Storage, password: str
) -> None:
    storage.put(CONF)
    with pytest.raises(ConfUnusable, match="new db_password") as caught:
        await storage.conf.rewrite(ACME, "host", 5432, Credentials("user", Secret(password)))
    assert "s3" not in str(caught.value)
    assert storage.files() == {"odoo.conf": CONF}


async def test_the_first_backup_of_an_attempt_is_the_one_restored(storage: Storage) -> None:
    storage.put(CONF)
    backup = await storage.conf.back_up(ACME, "tag-1")
    await rewrite(storage)
    assert await storage.conf.back_up(ACME, "tag-1") == backup
    assert storage.files() == {"odoo.conf": REWRITTEN, backup.name: CONF}
    assert await storage.conf.restore_file(ACME, "tag-1")
    assert await storage.conf.restore_file(ACME, "tag-1")
    assert storage.files() == {"odoo.conf": CONF, backup.name: CONF}


async def test_nothing_is_restored_for_an_attempt_without_a_backup(storage: Storage) -> None:
    storage.put(CONF)
    await storage.conf.back_up(ACME, "tag-1")
    await rewrite(storage)
    assert not await storage.conf.restore_file(ACME, "tag-2")
    assert storage.files()["odoo.conf"] == REWRITTEN


async def test_backups_are_listed_with_their_attempt_tags_and_without_the_file_itself(
    storage: Storage,
) -> None:
    storage.put(CONF)
    conf: Any = storage.conf  # the reconciler's port `ConfBackups`, which the same adapter is
    assert await conf.conf_backups(ACME) == ()
    await storage.conf.back_up(ACME, "first")
    await storage.conf.back_up(ACME, "second-2")
    found = await conf.conf_backups(ACME)
    assert {(one.name, one.tag) for one in found} == {
        ("odoo.conf.rehome-first", "first"),
        ("odoo.conf.rehome-second-2", "second-2"),
    }


async def test_removing_a_backup_leaves_other_attempts_backups_and_may_be_repeated(storage: Storage) -> None:
    storage.put(CONF)
    await storage.conf.back_up(ACME, "tag-1")
    other = await storage.conf.back_up(ACME, "tag-2")
    for _ in range(2):
        await storage.conf.remove_backup(ACME, "tag-1")
    assert storage.files() == {"odoo.conf": CONF, other.name: CONF}


@pytest.mark.parametrize("name", ["../other", "a/b", "/etc", "a\0b", "a\nb"])
async def test_a_database_name_that_leads_elsewhere_is_refused(storage: Storage, name: str) -> None:
    instance = Instance(ACME.id, ACME.customer_id, "Acme", "running", name)
    with pytest.raises(ConfUnusable, match="is no file name"):
        await storage.conf.read(instance)


@pytest.mark.parametrize("tag", ["", "../x", "a/b", ".", "a b", "\0"])
async def test_an_attempt_tag_that_is_no_plain_word_is_a_programming_error(
    storage: Storage, tag: str
) -> None:
    storage.put(CONF)
    with pytest.raises(ValueError, match="cannot be part of the name"):
        await storage.conf.back_up(ACME, tag)
