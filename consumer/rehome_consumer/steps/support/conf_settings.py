"""SETTINGS: everything by which Odoo, a module of the OCA's, or an image is told where its database is.

Read from the reference of Odoo 14 to 19 (`odoo-bin --help`) and the modules' own pages. docs/odoo-conf.md shows this
table; `conf_meaning` applies it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from rehome_consumer.model import LoginPart

Place = Literal["options", "queue_job", "environment", "arguments"]
"""A section of odoo.conf, or a part of the service's definition."""

Action = Literal[
    "moved",
    "always_set",
    "follows",
    "follows_the_pool",
    "must_agree",
    "must_be_database",
    "compared_with_tls",
    "maybe_missing_database",
    "compared_with_version",
    "log_database",
    "session_database",
    "server_environment",
    "must_be_absent",
    "suspicious",
    "names_the_file",
    "no_address",
]

ACTIONS: Final[dict[Action, str]] = {
    "moved": "rewritten, or added; refused where host, port or user is not the record's",
    "always_set": "set, whether it was there or not",
    "follows": "rewritten; a warning where it was neither the pool's nor the tenant's",
    "follows_the_pool": "rewritten where it is the pool's or the tenant's, else a warning",
    "must_agree": "refused, unless it is the dedicated server's already",
    "must_be_database": "refused, unless it is the database that is moved",
    "compared_with_tls": "refused where it wants TLS and the dedicated server has none; a warning for `verify-*`",
    "maybe_missing_database": "a warning where the dedicated server may not have that database",
    "compared_with_version": "a warning where the dedicated server is of a newer major version",
    "log_database": "a warning where it is another database than the one that is moved",
    "session_database": "refused where the move would cut it off, a warning where it stays on the pool",
    "server_environment": "refused where it sets `jobrunner_db_*`, a warning where it names the pool",
    "must_be_absent": "refused, unless it is the dedicated server's",
    "suspicious": "a warning",
    "names_the_file": "a warning where it is not an odoo.conf",
    "no_address": "kept: it names no server",
}
"""What is done with a setting, as the documentation says it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        key: the option in lower case, the variable, or the argument.
        since: the first Odoo that knows it (14 stands for 14 and older), the module, or the image.
        meaning: what it names.
        part: which of the four values it takes, or must have.
        aliases: other spellings of an argument.
    """

    place: Place
    key: str
    since: str
    meaning: str
    action: Action
    part: LoginPart | None = None
    aliases: tuple[str, ...] = ()


_PARTS: Final[tuple[LoginPart, ...]] = ("db_host", "db_port", "db_user", "db_password")
_QUEUE_JOB: Final = "OCA queue_job"
_BUS: Final = "OCA bus_alt_connection"
_OFFICIAL: Final = "image odoo"
_BITNAMI: Final = "image bitnami/odoo"
_OTHERS: Final = "other images"


def _parts(place: Place, keys: str, since: str, meaning: str, action: Action) -> tuple[Setting, ...]:
    """Settings for host, port, user and password, or the first of them; `keys` has blanks between."""
    return tuple(
        Setting(place, key, since, meaning, action, part)
        for key, part in zip(keys.split(), _PARTS, strict=False)
    )


_OPTIONS: Final = (
    *_parts(
        "options",
        "db_host db_port db_user db_password",
        "Odoo 14",
        "the database's server and login",
        "moved",
    ),
    Setting("options", "db_name", "Odoo 14", "the database", "must_be_database"),
    *_parts(
        "options",
        "db_replica_host db_replica_port",
        "Odoo 18",
        "a replica of db_host's server, for reading",
        "follows",
    ),
    Setting(
        "options", "db_sslmode", "Odoo 14", "how much TLS Odoo wants from the server", "compared_with_tls"
    ),
    Setting(
        "options", "db_template", "Odoo 14", "what new databases are made from", "maybe_missing_database"
    ),
    Setting(
        "options",
        "pg_path",
        "Odoo 14",
        "pg_dump and the like, of the database manager",
        "compared_with_version",
    ),
    Setting("options", "log_db", "Odoo 14", "the database for log lines, or its URI", "log_database"),
    Setting("options", "dbfilter", "Odoo 14", "which databases a host name may see", "no_address"),
    Setting("options", "db_maxconn", "Odoo 14", "connections per process", "no_address"),
    Setting("options", "db_maxconn_gevent", "Odoo 17", "connections of the gevent process", "no_address"),
    Setting("options", "db_app_name", "Odoo 19", "application_name of the connections", "no_address"),
    Setting("options", "list_db", "Odoo 14", "whether the database manager is shown", "no_address"),
    Setting("options", "unaccent", "Odoo 14", "whether new databases get the extension", "no_address"),
    *_parts(
        "options",
        "queue_job_jobrunner_db_host queue_job_jobrunner_db_port queue_job_jobrunner_db_user "
        "queue_job_jobrunner_db_password",
        f"{_QUEUE_JOB} 19",
        "where the job runner listens for jobs",
        "follows",
    ),
    *_parts("options", "imdispatcher_db_host imdispatcher_db_port", _BUS, "where the bus listens", "follows"),
    Setting(
        "options",
        "imdispatcher_db_name",
        _BUS,
        "the database that the bus listens in",
        "maybe_missing_database",
    ),
    *_parts("options", "cron_db_host cron_db_port", _BUS, "where cron workers listen", "follows"),
    Setting("options", "running_env", "OCA server_environment", "dev, test or production", "no_address"),
)

_SECTIONS: Final = _parts(
    "queue_job",
    "jobrunner_db_host jobrunner_db_port jobrunner_db_user jobrunner_db_password",
    _QUEUE_JOB,
    "where the job runner listens for jobs",
    "follows",
)

_ENVIRONMENT: Final = (
    *_parts(
        "environment",
        "ODOO_DATABASE_HOST ODOO_DATABASE_PORT_NUMBER ODOO_DATABASE_USER ODOO_DATABASE_PASSWORD",
        _BITNAMI,
        "db_host and so on, until the first boot has written odoo.conf",
        "always_set",
    ),
    Setting("environment", "ODOO_DATABASE_NAME", _BITNAMI, "db_name, until the first boot", "no_address"),
    *_parts(
        "environment",
        "PGHOST PGPORT PGUSER PGPASSWORD",
        "Odoo 19",
        "db_host and so on; counts more than odoo.conf",
        "follows_the_pool",
    ),
    *_parts(
        "environment",
        "PGHOST_REPLICA PGPORT_REPLICA",
        "Odoo 19",
        "db_replica_host and db_replica_port; counts more than odoo.conf",
        "follows",
    ),
    Setting(
        "environment", "PGDATABASE", "Odoo 19", "db_name; counts more than odoo.conf", "must_be_database"
    ),
    Setting(
        "environment", "PGSSLMODE", "Odoo 19", "db_sslmode; counts more than odoo.conf", "compared_with_tls"
    ),
    Setting("environment", "PGDATABASE_TEMPLATE", "Odoo 19", "db_template", "maybe_missing_database"),
    Setting("environment", "PGPATH", "Odoo 19", "pg_path", "compared_with_version"),
    Setting("environment", "ODOO_LOG_DB", "Odoo 19", "log_db", "log_database"),
    Setting(
        "environment",
        "PGHOSTADDR",
        "libpq",
        "the server's IP address; counts more than any db_host",
        "must_be_absent",
        "db_host",
    ),
    Setting("environment", "PGSERVICE", "libpq", "an entry of a file with connections", "suspicious"),
    Setting("environment", "PGSERVICEFILE", "libpq", "that file", "suspicious"),
    Setting("environment", "ODOO_RC", "Odoo 14", "the configuration file", "names_the_file"),
    Setting("environment", "OPENERP_SERVER", "Odoo 14", "the configuration file", "names_the_file"),
    *_parts(
        "environment",
        "ODOO_QUEUE_JOB_JOBRUNNER_DB_HOST ODOO_QUEUE_JOB_JOBRUNNER_DB_PORT ODOO_QUEUE_JOB_JOBRUNNER_DB_USER "
        "ODOO_QUEUE_JOB_JOBRUNNER_DB_PASSWORD",
        _QUEUE_JOB,
        "where the job runner listens; counts more than odoo.conf",
        "follows",
    ),
    *_parts(
        "environment", "IMDISPATCHER_DB_HOST IMDISPATCHER_DB_PORT", _BUS, "where the bus listens", "follows"
    ),
    *_parts(
        "environment",
        "ODOO_IMDISPATCHER_DB_HOST ODOO_IMDISPATCHER_DB_PORT",
        _BUS,
        "where the bus listens; counts more than odoo.conf",
        "follows",
    ),
    *_parts(
        "environment",
        "ODOO_CRON_DB_HOST ODOO_CRON_DB_PORT",
        _BUS,
        "where cron workers listen; counts more than odoo.conf",
        "follows",
    ),
    Setting(
        "environment",
        "SESSION_DB_URI",
        "OCA session_db",
        "the database with the users' sessions",
        "session_database",
    ),
    Setting(
        "environment",
        "SERVER_ENV_CONFIG",
        "OCA server_environment",
        "further sections of configuration, as text",
        "server_environment",
    ),
    Setting(
        "environment",
        "SERVER_ENV_CONFIG_SECRET",
        "OCA server_environment",
        "further sections of configuration, as text",
        "server_environment",
    ),
    *_parts(
        "environment",
        "HOST PORT USER PASSWORD",
        _OFFICIAL,
        "db_host and so on, where its entrypoint finds none in odoo.conf",
        "follows_the_pool",
    ),
    *(
        setting
        for prefix in ("DB_", "POSTGRES_", "ODOO_DB_", "DATABASE_")
        for setting in _parts(
            "environment",
            " ".join(f"{prefix}{name}" for name in ("HOST", "PORT", "USER", "PASSWORD")),
            _OTHERS,
            "what their entrypoints make an odoo.conf of",
            "follows_the_pool",
        )
    ),
)

_OVERRIDES: Final = "counts more than odoo.conf"
_ARGUMENTS: Final = (
    Setting("arguments", "--db_host", "Odoo 14", f"db_host; {_OVERRIDES}", "must_agree", "db_host"),
    Setting("arguments", "--db_port", "Odoo 14", f"db_port; {_OVERRIDES}", "must_agree", "db_port"),
    Setting("arguments", "--db_user", "Odoo 14", f"db_user; {_OVERRIDES}", "must_agree", "db_user", ("-r",)),
    Setting(
        "arguments",
        "--db_password",
        "Odoo 14",
        f"db_password; {_OVERRIDES}",
        "must_agree",
        "db_password",
        ("-w",),
    ),
    Setting(
        "arguments", "--db_replica_host", "Odoo 18", f"db_replica_host; {_OVERRIDES}", "must_agree", "db_host"
    ),
    Setting(
        "arguments", "--db_replica_port", "Odoo 18", f"db_replica_port; {_OVERRIDES}", "must_agree", "db_port"
    ),
    Setting(
        "arguments",
        "--database",
        "Odoo 14",
        f"db_name; {_OVERRIDES}",
        "must_be_database",
        aliases=("-d",),
    ),
    Setting("arguments", "--db_sslmode", "Odoo 14", f"db_sslmode; {_OVERRIDES}", "compared_with_tls"),
    Setting("arguments", "--db-template", "Odoo 14", "db_template", "maybe_missing_database"),
    Setting("arguments", "--pg_path", "Odoo 14", "pg_path", "compared_with_version"),
    Setting("arguments", "--log-db", "Odoo 14", "log_db", "log_database"),
    Setting("arguments", "--config", "Odoo 14", "the configuration file", "names_the_file", aliases=("-c",)),
    Setting("arguments", "--db-filter", "Odoo 14", "dbfilter", "no_address"),
    Setting("arguments", "--db_maxconn", "Odoo 14", "db_maxconn", "no_address"),
)

SETTINGS: Final = (*_OPTIONS, *_SECTIONS, *_ENVIRONMENT, *_ARGUMENTS)
"""All of them, by place."""
