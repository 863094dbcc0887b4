"""odoo.conf and service definitions as Odoo 14 to 19 and the OCA's modules have them: what each means for a move."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from rehome_consumer.adapters.odoo.conf import as_conf
from rehome_consumer.adapters.odoo.conf_text import read_sections
from rehome_consumer.errors import ConfUnusable, Incompatible
from rehome_consumer.model import Credentials, Secret, Server, Service
from rehome_consumer.steps.support.conf_meaning import judged
from rehome_consumer.steps.support.conf_settings import ACTIONS, SETTINGS, Setting
from rehome_consumer.steps.support.relocation import MOST_WARNINGS, Meaning, Relocation

PASSWORD = "the-tenants-password"
LOGIN = Credentials("odoo_acme", Secret(PASSWORD))
OTHER = Credentials("odoo_7e77", Secret("made-for-7e77"))
POOL = Server(
    UUID(int=1), "postgres-pool-1", "10.1.0.5", 5432, "shared", "active", Credentials("a", Secret("a"))
)
OWN = replace(POOL, name="postgres-dedicated-7", host="postgres-dedicated-7", port=6432, kind="dedicated")
PLACE = Relocation(
    "acme",
    POOL,
    frozenset({"10.1.0.5", "postgres-pool-1"}),
    LOGIN,
    OTHER,
    OWN,
    versions=(15, 15),
    tls=False,
)
BASE = "db_host = postgres-pool-1\ndb_port = 5432\ndb_user = odoo_acme\ndb_password = the-tenants-password\n"


def judge(
    text: str = "", env: dict[str, str] | None = None, words: str | list[str] = "", place: Relocation = PLACE
) -> Meaning:
    """The meaning of an odoo.conf with these further lines, and of a service with these variables and arguments."""
    path = Path("odoo.conf")
    conf = as_conf(path, read_sections(f"[options]\n{BASE}{text}".encode(), "odoo.conf"))
    container = {"Args": words.split() if isinstance(words, str) else words}
    spec: dict[str, Any] = {"TaskTemplate": {"ContainerSpec": container}}
    return judged(conf, Service("odoo-acme", "s", 1, (), env or {}, spec), place)


def refusal(meaning: Meaning) -> str:
    """Why it is refused; '' where it is not."""
    return "; ".join(meaning.in_conf + meaning.in_service)


@dataclass(frozen=True)
class Case:
    """Further lines of odoo.conf, and what follows; nothing else may."""

    name: str
    text: str
    options: dict[str, str] = field(default_factory=dict)
    refused: str = ""
    warnings: tuple[str, ...] = ()
    place: Relocation = PLACE


TLS = replace(PLACE, tls=True)
NEWER = replace(PLACE, versions=(15, 17))
FILES = (
    Case(
        "Odoo 14, all written out",
        "db_maxconn = 64\ndb_name = False\ndb_sslmode = prefer\ndb_template = template0\n",
    ),
    Case("Odoo 15, one database", "db_name = acme\ndbfilter = ^acme$\nlist_db = False\n"),
    Case("Odoo 16, logs into its own database", "log_db = acme\nlog_db_level = warning\npg_path = None\n"),
    Case("Odoo 16, logs where it is", "log_db = %d\n"),
    Case("Odoo 16, logs elsewhere", "log_db = logs\n", warnings=("log_db .* does not move",)),
    Case(
        "Odoo 17, logs by URI to the pool",
        "log_db = postgresql://odoo_acme:the-tenants-password@10.1.0.5/logs\n",
        warnings=("log_db .* names the pool",),
    ),
    Case("Odoo 17, logs by URI elsewhere", "log_db = postgresql://x:y@logs/x\n"),
    Case("Odoo 17, gevent", "db_maxconn_gevent = 32\n"),
    Case("Odoo 14, its own programs", "pg_path = /usr/lib/postgresql/15/bin\n"),
    Case(
        "Odoo 14, its own programs, newer server",
        "pg_path = /usr/lib/postgresql/15/bin\n",
        warnings=("pg_path .* 15, .* 17",),
        place=NEWER,
    ),
    Case("Odoo 14, template of its own", "db_template = acme_base\n", warnings=("db_template .* acme_base",)),
    Case("Odoo 14, TLS where there is", "db_sslmode = require\n", place=TLS),
    Case(
        "Odoo 14, TLS where there is none",
        "db_sslmode = require\n",
        refused="db_sslmode .* require, and .* no TLS",
    ),
    Case(
        "Odoo 14, verified where there is none",
        "db_sslmode = verify-full\n",
        refused="db_sslmode .* verify-full",
    ),
    Case(
        "Odoo 14, verified", "db_sslmode = verify-full\n", warnings=("name postgres-dedicated-7",), place=TLS
    ),
    Case("Odoo 14, authority", "db_sslmode = verify-ca\n", warnings=("verify-ca.*authority",), place=TLS),
    Case("Odoo 14, no TLS", "db_sslmode = disable\n"),
    Case(
        "Odoo 14, before there is a server",
        "db_sslmode = require\n",
        place=replace(PLACE, target=None, tls=None),
    ),
    Case("Odoo 18, no replica", "db_replica_host = False\ndb_replica_port = False\n"),
    Case(
        "Odoo 18, the pool as its replica",
        "db_replica_host = postgres-pool-1\ndb_replica_port = 5432\n",
        {"options.db_replica_host": "db_host", "options.db_replica_port": "db_port"},
    ),
    Case(
        "Odoo 18, a replica of the pool",
        "db_replica_host = postgres-pool-1-replica\n",
        {"options.db_replica_host": "db_host"},
        warnings=("db_replica_host .* postgres-pool-1-replica, not the pool's; it is given the dedicated",),
    ),
    Case("Odoo 19, name of the application", "db_app_name = odoo-{pid}\n"),
    Case(
        "Odoo 19, replica already right", "db_replica_host = postgres-dedicated-7\ndb_replica_port = 6432\n"
    ),
    Case("queue_job, defaults", "[queue_job]\nchannels = root:4\nhost = load-balancer\nport = 443\n"),
    Case(
        "queue_job, complete",
        "[queue_job]\nchannels = root:2\njobrunner_db_host = postgres-pool-1\njobrunner_db_port = 5432\n"
        "jobrunner_db_user = odoo_acme\njobrunner_db_password = the-tenants-password\n",
        {
            "queue_job.jobrunner_db_host": "db_host",
            "queue_job.jobrunner_db_port": "db_port",
            "queue_job.jobrunner_db_user": "db_user",
            "queue_job.jobrunner_db_password": "db_password",
        },
    ),
    Case(
        "queue_job, the pool's address",
        "[queue_job]\njobrunner_db_host = 10.1.0.5\n",
        {"queue_job.jobrunner_db_host": "db_host"},
    ),
    Case(
        "queue_job, past a pooler, with a login of its own",
        "[queue_job]\njobrunner_db_host = master-db\njobrunner_db_user = runner\njobrunner_db_password = x\n",
        {
            "queue_job.jobrunner_db_host": "db_host",
            "queue_job.jobrunner_db_user": "db_user",
            "queue_job.jobrunner_db_password": "db_password",
        },
        warnings=(
            "jobrunner_db_host in .queue_job. is master-db",
            "is runner, not the tenant's",
            "another password",
        ),
    ),
    Case(
        "queue_job, unset",
        "[queue_job]\njobrunner_db_host =\njobrunner_db_password = False\n",
    ),
    Case(
        "queue_job 19, in options",
        "queue_job_channels = root:2\nqueue_job_jobrunner_db_host = postgres-pool-1\n",
        {"options.queue_job_jobrunner_db_host": "db_host"},
    ),
    Case(
        "queue_job, by default of all sections",
        "[queue_job]\nchannels = root\n[DEFAULT]\njobrunner_db_host = postgres-pool-1\n",
        {"queue_job.jobrunner_db_host": "db_host"},
        warnings=(r"jobrunner_db_host in \[DEFAULT\] names the pool", r"jobrunner_db_host in \[options\]")[
            :1
        ],
    ),
    Case(
        "bus_alt_connection",
        "server_wide_modules = web,bus_alt_connection\nimdispatcher_db_host = postgres-pool-1\n"
        "imdispatcher_db_port = 5432\ncron_db_host = postgres-pool-1\ncron_db_port = 5432\n",
        {
            "options.imdispatcher_db_host": "db_host",
            "options.imdispatcher_db_port": "db_port",
            "options.cron_db_host": "db_host",
            "options.cron_db_port": "db_port",
        },
    ),
    Case(
        "bus_alt_connection 12, database",
        "imdispatcher_db_name = v12c\n",
        warnings=("v12c, which does not move",),
    ),
    Case("bus_alt_connection 12, default database", "imdispatcher_db_name = postgres\n"),
    Case("server_environment", "running_env = production\n[outgoing_mail]\nsmtp_host = mail\n"),
    Case("dbfilter_from_header", "server_wide_modules = web,dbfilter_from_header\nproxy_mode = True\n"),
    Case("session_redis", "[options_of_sessions]\nredis_host = redis\n"),
    Case("sentry", "sentry_enabled = True\nsentry_dsn = https://x@sentry.example/1\n"),
    Case(
        "a section nobody knows names the pool",
        "[reports]\nurl = postgresql://report:x@POSTGRES-pool-1:5432/acme\nmail = a@postgres-pool-1.example\n",
        warnings=(r"url in \[reports\] names the pool, and stays",),
    ),
    Case("a path is no address", "addons_path = /mnt/postgres-pool-1/addons\ndata_dir = /srv/10.1.0.5\n"),
    Case("an address that begins alike", "[x]\na = 10.1.0.55\nb = postgres-pool-10\nc = my.10.1.0.5\n"),
    Case("another database", "db_name = other\n", refused="db_name .* other, the record says acme"),
)


@pytest.mark.parametrize("case", FILES, ids=[case.name for case in FILES])
def test_an_odoo_conf_means(case: Case) -> None:
    meaning = judge(case.text, place=case.place)
    assert {".".join(key): part for key, part in meaning.options.items()} == case.options
    assert_said(meaning, case.refused, case.warnings)


def assert_said(meaning: Meaning, refused: str, warnings: tuple[str, ...]) -> None:
    """These words, each warning once, and never the password."""

    said = (*meaning.shown_warnings(), refusal(meaning))
    assert bool(refusal(meaning)) == bool(refused), said
    assert re.search(refused, refusal(meaning)), said
    assert len(meaning.warnings) == len(warnings), said
    for expected, text in zip(warnings, meaning.warnings, strict=True):
        assert re.search(expected, text), said
    assert not any(PASSWORD in text for text in said)


@dataclass(frozen=True)
class ServiceCase:
    """Variables and arguments of a service, and what follows; nothing else may."""

    name: str
    env: dict[str, str] = field(default_factory=dict)
    words: str | list[str] = ""
    variables: dict[str, str] = field(default_factory=dict)
    refused: str = ""
    warnings: tuple[str, ...] = ()
    place: Relocation = PLACE


SERVICES = (
    ServiceCase("bitnami/odoo", {"ODOO_DATABASE_HOST": "10.1.0.5", "ODOO_DATABASE_USER": "odoo_acme"}),
    ServiceCase("image odoo, given nothing", words="odoo"),
    ServiceCase(
        "image odoo",
        {"HOST": "postgres-pool-1", "PORT": "5432", "USER": "odoo_acme", "PASSWORD": PASSWORD},
        variables={"HOST": "db_host", "PORT": "db_port", "USER": "db_user", "PASSWORD": "db_password"},
    ),
    ServiceCase(
        "HOST of something else", {"HOST": "127.0.0.1", "PORT": "8069", "USER": "odoo", "PASSWORD": "x"}
    ),
    ServiceCase(
        "an image of one's own",
        {"DB_HOST": "postgres-pool-1", "POSTGRES_USER": "odoo_acme"},
        variables={"DB_HOST": "db_host", "POSTGRES_USER": "db_user"},
    ),
    ServiceCase(
        "host and port in one", {"DATABASE_HOST": "postgres-pool-1:5432"}, warnings=("DATABASE_HOST names",)
    ),
    ServiceCase(
        "Odoo 19, PG*",
        {"PGHOST": "postgres-pool-1", "PGPORT": "5432", "PGUSER": "odoo_acme", "PGPASSWORD": PASSWORD},
        variables={
            "PGHOST": "db_host",
            "PGPORT": "db_port",
            "PGUSER": "db_user",
            "PGPASSWORD": "db_password",
        },
    ),
    ServiceCase(
        "PG* of something else", {"PGHOST": "warehouse"}, warnings=("PGHOST is warehouse, .* and stays",)
    ),
    ServiceCase(
        "PGPASSWORD of something else", {"PGPASSWORD": "xyzzy"}, warnings=("PGPASSWORD is another password",)
    ),
    ServiceCase(
        "Odoo 19, a replica of the pool",
        {"PGHOST_REPLICA": "replica"},
        variables={"PGHOST_REPLICA": "db_host"},
        warnings=("PGHOST_REPLICA is replica",),
    ),
    ServiceCase("Odoo 19, database", {"PGDATABASE": "acme", "PGAPPNAME": "x"}),
    ServiceCase(
        "Odoo 19, other database",
        {"PGDATABASE": "x"},
        refused="variable PGDATABASE is x, the record says acme",
    ),
    ServiceCase("Odoo 19, TLS", {"PGSSLMODE": "verify-ca"}, refused="variable PGSSLMODE is verify-ca"),
    ServiceCase("Odoo 19, logs", {"ODOO_LOG_DB": "logs"}, warnings=("ODOO_LOG_DB is logs",)),
    ServiceCase(
        "libpq, address", {"PGHOSTADDR": "10.1.0.5"}, refused="PGHOSTADDR .* remove it from the service's env"
    ),
    ServiceCase("libpq, service", {"PGSERVICE": "acme"}, warnings=("PGSERVICE can name a server",)),
    ServiceCase(
        "its own file", {"ODOO_RC": "/etc/odoo/erp.conf"}, warnings=("ODOO_RC is /etc/odoo/erp.conf",)
    ),
    ServiceCase("the usual file", {"ODOO_RC": "/etc/odoo/odoo.conf"}),
    ServiceCase(
        "queue_job",
        {
            "ODOO_QUEUE_JOB_CHANNELS": "root:4",
            "ODOO_QUEUE_JOB_JOBRUNNER_DB_HOST": "postgres-pool-1",
            "ODOO_QUEUE_JOB_JOBRUNNER_DB_PORT": "5432",
        },
        variables={
            "ODOO_QUEUE_JOB_JOBRUNNER_DB_HOST": "db_host",
            "ODOO_QUEUE_JOB_JOBRUNNER_DB_PORT": "db_port",
        },
    ),
    ServiceCase(
        "bus_alt_connection",
        {"ODOO_IMDISPATCHER_DB_HOST": "postgres-pool-1", "ODOO_CRON_DB_PORT": "5432"},
        variables={"ODOO_IMDISPATCHER_DB_HOST": "db_host", "ODOO_CRON_DB_PORT": "db_port"},
    ),
    ServiceCase(
        "session_db, the tenant's login",
        {"SESSION_DB_URI": f"postgres://odoo_acme:{PASSWORD}@postgres-pool-1/sessions"},
        refused="SESSION_DB_URI names the pool and the tenant's login",
    ),
    ServiceCase(
        "session_db, a login of its own",
        {"SESSION_DB_URI": "postgres://sessions:x@10.1.0.5/sessions"},
        warnings=("SESSION_DB_URI names the pool, and stays",),
    ),
    ServiceCase("session_db, elsewhere", {"SESSION_DB_URI": "postgres://sessions:x@other/sessions"}),
    ServiceCase("session_db, in the database itself", {"SESSION_DB_URI": "acme"}),
    ServiceCase(
        "session_db, beside it", {"SESSION_DB_URI": "sessions"}, refused="sessions, a database on db_host's"
    ),
    ServiceCase(
        "server_environment, the job runner",
        {"SERVER_ENV_CONFIG": "[queue_job]\njobrunner_db_host = postgres-pool-1\nchannels = root\n"},
        refused="SERVER_ENV_CONFIG sets jobrunner_db_host, .* remove it there",
    ),
    ServiceCase(
        "server_environment, the job runner's secrets",
        {"SERVER_ENV_CONFIG_SECRET": "[queue_job]\njobrunner_db_password: x\n"},
        refused="SERVER_ENV_CONFIG_SECRET sets jobrunner_db_password",
    ),
    ServiceCase(
        "server_environment, something else",
        {"SERVER_ENV_CONFIG_SECRET": f"[dwh]\nurl=postgresql://a:{PASSWORD}@10.1.0.5/x\n"},
        warnings=("SERVER_ENV_CONFIG_SECRET names the pool",),
    ),
    ServiceCase(
        "a URI that nobody knows",
        {"DATABASE_URL": f"postgres://odoo_acme:{PASSWORD}@10.1.0.5:5432/acme"},
        warnings=("DATABASE_URL names the pool",),
    ),
    ServiceCase(
        "argument",
        words="odoo --db_host postgres-pool-1",
        refused="--db_host is postgres-pool-1 .* remove it",
    ),
    ServiceCase("argument with =", words="odoo --db_host=elsewhere", refused="--db_host is elsewhere"),
    ServiceCase("argument cut short", words="odoo --db_h=elsewhere", refused="--db_host is elsewhere"),
    ServiceCase("argument with hyphens", words="odoo --db-host=elsewhere", refused="--db_host is elsewhere"),
    ServiceCase(
        "short arguments", words="odoo -r odoo_acme -wpw", refused="--db_user is odoo_acme.*another password"
    ),
    ServiceCase("the same login", words="odoo -r odoo_7e77 --db_password made-for-7e77"),
    ServiceCase("port", words="odoo --db_port 5432", refused="--db_port is 5432"),
    ServiceCase("replica", words="odoo --db_replica_host=replica", refused="--db_replica_host is replica"),
    ServiceCase("for the entrypoint", words="-- -r x", refused="--db_user is x"),
    ServiceCase("options only", words="-w x --workers=4", refused="--db_password is another password"),
    ServiceCase("of another program", words="rsync -r a b"),
    ServiceCase(
        "in a shell",
        words=["sh", "-c", "rm -r /tmp/x; exec odoo --db_host='postgres-pool-1' -d acme"],
        refused="--db_host is postgres-pool-1",
    ),
    ServiceCase(
        "in a shell that is cut off", words=["sh", "-c", "odoo --db_host=x 'y"], refused="--db_host is x"
    ),
    ServiceCase(
        "in a shell, from a variable that follows",
        {"DB_HOST": "postgres-pool-1"},
        ["sh", "-c", "odoo --db_host=$DB_HOST"],
        {"DB_HOST": "db_host"},
    ),
    ServiceCase(
        "in a shell, from a variable that does not",
        {"X": "y"},
        ["odoo", "--db_host=${X}"],
        refused="--db_host is y",
    ),
    ServiceCase(
        "in a shell, from nowhere", {}, ["odoo --db_host=$X"], warnings=("--db_host is taken from .X",)
    ),
    ServiceCase("database", words="odoo -d acme --database=acme"),
    ServiceCase("other databases", words="odoo -d acme,other", refused="--database"),
    ServiceCase("TLS", words="odoo --db_sslmode=require", refused="--db_sslmode is require"),
    ServiceCase("another file", words="odoo -c /etc/x.conf", warnings=("--config is /etc/x.conf",)),
    ServiceCase(
        "waits for the pool", words="wait-for postgres-pool-1:5432 -- odoo", warnings=("an argument names",)
    ),
    ServiceCase(
        "host, before there is a server",
        words="odoo --db_host=x --db_port=5432",
        refused="--db_host is x",
        place=replace(PLACE, target=None, tls=None, versions=None),
    ),
)


@pytest.mark.parametrize("case", SERVICES, ids=[case.name for case in SERVICES])
def test_a_service_means(case: ServiceCase) -> None:
    meaning = judge("", case.env, case.words, case.place)
    assert meaning.variables == case.variables
    assert_said(meaning, case.refused, case.warnings)


OLD = {"db_host": "10.1.0.5", "db_port": "5432", "db_user": "odoo_acme", "db_password": PASSWORD}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: f"{setting.place}-{setting.key}")
def test_a_setting_that_takes_one_of_the_four_values_takes_it(setting: Setting) -> None:
    """Each alone, with today's value."""
    if setting.part is None or setting.action in ("moved", "always_set"):
        return
    value = OLD[setting.part]
    if setting.place == "arguments":
        for name in (setting.key, *setting.aliases):
            meaning = judge(words=["odoo", name, value])
            assert f"argument {setting.key} is " in refusal(meaning)
            assert PASSWORD not in refusal(meaning)
    elif setting.place == "environment":
        meaning = judge(env={setting.key: value})
        assert (meaning.variables == {setting.key: setting.part}) != bool(refusal(meaning))
        assert meaning.warnings == []
    else:
        section = "" if setting.place == "options" else f"[{setting.place}]\n"
        meaning = judge(f"{section}{setting.key} = {value}\n")
        assert meaning.options == {(setting.place, setting.key): setting.part}
        assert (meaning.warnings, refusal(meaning)) == ([], "")


@pytest.mark.parametrize(
    ("env", "words", "warnings"),
    [
        ({"PGDATABASE_TEMPLATE": "base"}, "odoo --db-template=base", 2),
        ({"PGPATH": "/usr/lib/postgresql/15/bin"}, "odoo --pg_path=/usr/lib/postgresql/15/bin", 2),
        ({"ODOO_LOG_DB": "logs"}, "odoo --log-db logs", 2),
        ({"PGSERVICEFILE": "/etc/x", "OPENERP_SERVER": "/etc/x"}, "", 2),
    ],
)
def test_what_a_variable_or_an_argument_means_is_what_the_option_means(
    env: dict[str, str], words: str, warnings: int
) -> None:
    meaning = judge(env=env, words=words, place=NEWER)
    assert (len(meaning.warnings), refusal(meaning)) == (warnings, "")


def test_a_second_look_after_the_rewrite_finds_nothing_to_do() -> None:
    """A step that was cut off runs again."""
    text = BASE.replace("postgres-pool-1", OWN.host).replace("5432", "6432").replace("odoo_acme", "odoo_7e77")
    conf = as_conf(
        Path("odoo.conf"),
        read_sections(
            f"[options]\n{text}db_replica_host = {OWN.host}\n[queue_job]\njobrunner_db_port = 6432\n".encode(),
            "x",
        ),
    )
    meaning = judged(conf, Service("s", "s", 0, (), {"PGHOST": OWN.host, "PGUSER": "odoo_7e77"}, {}), PLACE)
    assert (meaning.options, meaning.variables, meaning.warnings, refusal(meaning)) == ({}, {}, [], "")


def test_files_that_the_definition_brings_are_noticed() -> None:
    container = {
        "Configs": [{"File": {"Name": "/etc/odoo/odoo.conf"}}],
        "Secrets": [{"File": {"Name": "ca.pem"}}],
    }
    conf = as_conf(Path("odoo.conf"), read_sections(f"[options]\n{BASE}".encode(), "x"))
    service = Service("s", "s", 1, (), {}, {"TaskTemplate": {"ContainerSpec": container}})
    assert len(judged(conf, service, PLACE).warnings) == 1
    assert "/etc/odoo/odoo.conf in its container" in judged(conf, service, PLACE).warnings[0]


def test_of_many_warnings_the_first_ones_are_shown() -> None:
    lines = "".join(f"{'x' * 300}{number} = 10.1.0.5\n" for number in range(30))
    shown = judge(lines).shown_warnings()
    assert len(shown) == MOST_WARNINGS + 1
    assert shown[-1] == "and 10 more like these"
    assert max(map(len, shown)) < 200


def test_what_is_refused_names_file_and_service_in_one_error() -> None:
    meaning = judge("db_sslmode = require\n", {"PGHOSTADDR": "10.1.0.5"})
    with pytest.raises(
        ConfUnusable, match=r"odoo\.conf: db_sslmode in \[options\].*service odoo-acme: variable PG"
    ):
        meaning.require_movable()
    with pytest.raises(Incompatible, match="service odoo-acme: variable PGHOSTADDR"):
        judge("", {"PGHOSTADDR": "10.1.0.5"}).require_movable()


def test_every_setting_is_there_once_and_says_which_value_it_takes() -> None:
    places = [(one.place, one.key) for one in SETTINGS]
    assert len(places) == len(set(places))
    assert {one.action for one in SETTINGS} == set(ACTIONS)
    wants = {"moved", "always_set", "follows", "follows_the_pool", "must_agree", "must_be_absent"}
    assert all((one.part is not None) == (one.action in wants) for one in SETTINGS)
    assert all(one.key == one.key.lower() for one in SETTINGS if one.place != "environment")
