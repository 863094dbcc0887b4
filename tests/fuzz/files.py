"""Checks of files: the instance's odoo.conf, backups, lists of a dump's entries, ownership tags, users."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import UUID

from rehome_consumer.adapters.backup import files
from rehome_consumer.adapters.backup.place import DUMP, MANIFEST, SOURCE, BackupPlace
from rehome_consumer.adapters.odoo.conf import as_conf
from rehome_consumer.adapters.odoo.conf_text import edit_options, read_sections
from rehome_consumer.adapters.postgres import restore_list
from rehome_consumer.adapters.postgres.ownership_tags import parse
from rehome_consumer.commands.topology_users import script
from rehome_consumer.errors import SettingsError
from rehome_consumer.model import Credentials, Secret, Server, Service
from rehome_consumer.rabbitmq.users_file import password_of, read_users
from rehome_consumer.steps.support.conf_meaning import judged
from rehome_consumer.steps.support.relocation import Relocation
from tests.fuzz.common import LONGEST_ERROR, lines_and_rest, refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rehome_consumer.model import Conf, ConfKey

VALUES = {"db_host": "10.0.0.7", "db_port": "6432", "db_user": "new", "db_password": "%(x)s = ; # ' \" $"}
ID = "b1"


def odoo_conf(data: bytes) -> None:
    """odoo.conf: read as Odoo does or refused; edited so that Odoo reads the new values, also after a second edit.

    What the file means for a move is judged without an error, and in few words.
    """
    path = Path("odoo.conf")
    sections: dict[str, dict[str, str]] = {}
    if refused(lambda: sections.update(read_sections(data, "odoo.conf"))) is None:
        confs: list[Conf] = []
        if refused(lambda: confs.append(as_conf(path, sections))) is None:
            judge(confs[0])
    others = {(one, "jobrunner_db_host"): "10.0.0.7" for one in sections if one not in ("DEFAULT", "options")}
    for elsewhere in ({}, others):
        edit(data, sections, elsewhere)


def edit(data: bytes, sections: dict[str, dict[str, str]], others: dict[ConfKey, str]) -> None:
    """The new values are read back, all else stays, and a second edit changes nothing."""
    edited: list[bytes] = []
    if refused(lambda: edited.append(edit_options(data, VALUES, "odoo.conf", others))) is None:
        wanted = {section: dict(options) for section, options in sections.items()}
        wanted["options"].update(VALUES)
        for (section, key), value in others.items():
            wanted[section][key] = value
        assert read_sections(edited[0], "odoo.conf") == wanted
        assert edit_options(edited[0], VALUES, "odoo.conf", others) == edited[0]


def judge(conf: Conf) -> None:
    """What is rewritten is there to be rewritten; what is said holds no password."""
    pool = Server(UUID(int=1), "pool", "pool", 5432, "shared", "active", Credentials("p", Secret("p")))
    target = replace(pool, name="own", host="10.0.0.7", port=6432, kind="dedicated")
    service = Service("odoo", "s1", 1, (), {}, {})
    login = conf.credentials
    place = Relocation("acme", pool, frozenset({"pool"}), login, login, target, (15, 16), tls=False)
    meaning = judged(conf, service, place)
    assert all(conf.sections[section].get(key) for section, key in meaning.options)
    said = (*meaning.in_conf, *meaning.in_service, *meaning.shown_warnings())
    assert all(len(text) < LONGEST_ERROR for text in said)


def manifest(data: bytes) -> None:
    """A sealed backup's manifest: the backup, or Refused; nothing outside of the backup is opened."""
    place = _place()
    (place.sealed(ID) / MANIFEST).write_bytes(data)
    with _reading_only(place.sealed(ID)):
        refused(lambda: check_backup(place.check(ID, lambda: None)))


def source(data: bytes) -> None:
    """What a dump was taken of: sealed with it, or Refused or Conflict; nothing outside is opened."""
    place = _place()
    partial = place.partial("b2")
    (partial / DUMP).mkdir(parents=True, exist_ok=True)
    (partial / DUMP / "toc.dat").write_bytes(b"PGDMP")
    (partial / SOURCE).write_bytes(data)
    with _reading_only(partial):
        refused(lambda: check_backup(place.seal("b2", {"public.a": 1}, {}, lambda: None)))
    place.discard("b2", lambda: None)


def check_backup(backup: Any) -> None:
    """The promises that later steps rely on."""
    assert backup is not None
    assert backup.bytes >= 0
    assert backup.started_at.tzinfo is not None
    assert backup.ended_at.tzinfo is not None


def restore_lists(data: bytes) -> None:
    """A list of a dump's entries: every line goes to one of three lists or to none, in its order."""
    (tables, schemas, sequences), rest = lines_and_rest(data, 3)
    lines = rest.decode(errors="surrogateescape").splitlines(keepends=True)
    oids = [
        {int(one) for one in numbers.split(",") if re.fullmatch("[0-9]{1,9}", one)}
        for numbers in (tables, schemas)
    ]
    extensions = restore_list.ExtensionData(oids[0], set(filter(None, sequences.split(","))))
    divided = restore_list.divide(lines, extensions=extensions, existing_schemas=oids[1])
    parts = (divided.tenant, divided.extensions, divided.privileges)
    for part in parts:
        remaining = iter(lines)
        assert all(line in remaining for line in part), "the order of the list is kept"
    assert sum(map(len, parts)) <= len(lines)


def ownership_tag(data: bytes) -> None:
    """A database's comment: a tag, which is the same when written and read again, or none."""
    label = parse(data.decode(errors="replace"))
    if label is not None:
        assert parse(label.text()) == label
        assert -1 <= label.connection_limit < 2**31


def users(data: bytes) -> None:
    """A file of users: users with rights and a script for the shell, or SettingsError."""
    path = _directory() / "users.toml"
    path.write_bytes(data)

    def read() -> None:
        for user in read_users(path).users:
            refused(lambda user=user: password_of(user), SettingsError)  # type: ignore[misc] # bound now
            assert all(text.startswith("^") for text in user.rights.triple)
            assert "\n" not in user.name
            list(script((user,), "rabbitmqctl", path.name))

    refused(read, SettingsError)


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="rehome-fuzz-")


def _directory() -> Path:
    return Path(_scratch().name)


@cache
def _place() -> BackupPlace:
    place = BackupPlace(_directory() / "backups", threads=1)
    place.root.mkdir()
    dump = place.sealed(ID) / DUMP
    dump.mkdir(parents=True)
    (dump / "toc.dat").write_bytes(b"PGDMP")
    return place


def _reading_only(directory: Path) -> Any:
    """Fail when a file outside of this directory is hashed."""
    real = files.digest

    def digest(path: Path, *arguments: Any, **more: Any) -> Any:
        assert path.resolve().is_relative_to(directory.resolve()), f"{path} is not in the backup"
        return real(path, *arguments, **more)

    return mock.patch.object(files, "digest", digest)


def odoo_conf_seeds() -> Iterable[bytes]:
    return (
        b"[options]\ndb_host = pool\ndb_port = 5432\ndb_user = a\ndb_password = b\n; c\nProxy_Mode = True\n",
        b"# top\r\n[options]\r\n  DB_Host: x\r\n\r\n[queue]\r\ndb_host = 1\r\n",
        b"\xef\xbb\xbf[options]\ndb_host=False",
        (
            b"[options]\ndb_host=pool\ndb_user=a\ndb_password=b\nlog_db = postgresql://a:b@pool/x\n\n[queue_job]\n"
            b"jobrunner_db_host = pool\n  jobrunner_db_port=1"
        ),
    )


def manifest_seeds() -> Iterable[bytes]:
    good = {
        "format": 1,
        "id": ID,
        "started_at": "2026-01-01T00:00:00+00:00",
        "ended_at": "2026-01-01T00:00:01+00:00",
        "versions": {},
        "rows": {},
        "files": {
            "dump/toc.dat": {
                "bytes": 5,
                "sha256": "34b9c1bd1ee9f23b95d6e54e5dbd0de2f5ab6ef3bf3d7ad41ac06f18c2a5bd05",
            }
        },
    }
    yield json.dumps(good).encode()
    for name in ("../b1/dump/toc.dat", "/etc/hostname", "dump/../../x", "\x00", "", "dump"):
        yield json.dumps({**good, "files": {name: {"bytes": 5, "sha256": "00"}}}).encode()


def source_seeds() -> Iterable[bytes]:
    times = {"started_at": "2026-01-01T00:00:00+00:00", "ended_at": "2026-01-01T00:00:01+00:00"}
    choices: tuple[Any, ...] = ({"dump/toc.dat": 5}, {"../x": 1}, {"/etc/hostname": 1}, [])
    for listed in choices:
        yield json.dumps({**times, "files": listed}).encode()


def restore_list_seeds() -> Iterable[bytes]:
    yield b"\n".join(
        (
            b"16386,16387",
            b"2200,16500",
            b"gis spatial_seq",
            b"; Archive created at 2026-01-01",
            b"3341; 1259 16386 TABLE public account_account tenant",
            b"4000; 0 16386 TABLE DATA public spatial_ref_sys postgres",
            b"2; 3079 16387 EXTENSION - pg_trgm ",
            b"7; 2615 2200 SCHEMA - public pg_database_owner",
            b"8; 0 0 ACL - SCHEMA public pg_database_owner",
            b"9; 826 17000 DEFAULT ACL public DEFAULT PRIVILEGES x",
            b"",
        )
    )


def ownership_tag_seeds() -> Iterable[bytes]:
    tag = {"migration": "3f2b8c4d-5e6f-4071-8293-a4b5c6d7e8f9", "attempt": 1, "state": "scratch"}
    for limit in ("-1", "1e400", "Infinity", "[]"):
        more = f', "connection_limit": {limit}, "restored": false}}}}'
        yield f'{{"rehome": {json.dumps(tag)[:-1]}{more}'.encode()


def users_seeds() -> Iterable[bytes]:
    yield (Path(__file__).parent.parent.parent / "rabbitmq" / "users.example.toml").read_bytes()
