"""Settings: the only file that reads the environment (prefix REHOME_; `.env` is read in development)."""

from __future__ import annotations

import os
import re
from datetime import time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    AliasChoices,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rehome_consumer.errors import SettingsError
from rehome_consumer.model import Hours, Policy, Window
from rehome_consumer.network.tls import PostgresTls, SslMode
from rehome_consumer.saga import TIERS

if TYPE_CHECKING:
    from collections.abc import Collection

PREFIX: Final = "REHOME_"
SWARM: Final = "swarm"

_PLUGGED_IN: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)

Positive = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """The settings of this deployment. Every field is the environment variable REHOME_<NAME>."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    amqp_url: SecretStr = Field(description="RabbitMQ, amqp:// or amqps://, with the virtual host.")
    amqp_url_file: Path | None = Field(
        None, description="File that holds it, such as a Docker secret, instead of REHOME_AMQP_URL."
    )
    amqp_ca_file: Path | None = Field(
        None,
        description="Authorities that sign the broker's certificate (PEM), for amqps://; default: the system's.",
    )
    amqp_cert_file: Path | None = Field(
        None, description="Client certificate (PEM), where the broker requires one."
    )
    amqp_key_file: Path | None = Field(None, description="Its key (PEM); default: in the same file.")
    platform_dsn: SecretStr = Field(description="The platform's database `instance`.")
    platform_dsn_file: Path | None = Field(
        None, description="File that holds it, instead of REHOME_PLATFORM_DSN."
    )
    billing_dsn: SecretStr | None = Field(
        None, description="Billing's database; needed when events carry no entitlements."
    )
    billing_dsn_file: Path | None = Field(
        None, description="File that holds it, instead of REHOME_BILLING_DSN."
    )
    state_dsn: SecretStr | None = Field(
        None, description="The database with schema `rehome`; default: REHOME_PLATFORM_DSN."
    )
    state_dsn_file: Path | None = Field(None, description="File that holds it, instead of REHOME_STATE_DSN.")
    database_service_url: str = Field(description="database-service, http:// or https://.")
    data_root: Path = Field(description="Directory of the instances' directories on the shared storage.")
    backup_root: Path = Field(description="Directory for backups; needs room for the largest database.")
    secret_key: SecretStr | None = Field(None, description="Key for secrets at rest, 16 characters or more.")
    secret_key_file: Path | None = Field(
        None, description="File that holds the key, instead of REHOME_SECRET_KEY."
    )

    runtime: str = Field(
        "swarm", description="What runs the instances: swarm, or your own as module:function (docs/swarm.md)."
    )
    docker_host: str | None = Field(
        None,
        validation_alias=AliasChoices("docker_host", "DOCKER_HOST"),
        description="DOCKER_HOST, as Docker's own tools read it; default: the local engine.",
    )
    pg_bin: Path | None = Field(None, description="Directory of pg_dump and pg_restore; default: PATH.")
    pg_sslmode: SslMode = Field(
        "prefer", description="libpq's sslmode for pool and dedicated servers; a DSN has its own."
    )
    pg_sslrootcert: Path | None = Field(
        None,
        description="Authorities that sign those servers' certificates (PEM), for verify-ca and verify-full.",
    )
    host_map: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="Addresses for names that do not resolve here: name=address[:port],... (empty in production).",
    )

    jobs: int = Field(4, ge=1, le=64, description="Parallel jobs of one dump, restore or verification.")
    workers: int = Field(
        2, ge=1, le=32, description="Deliveries of one step that one consumer handles at a time."
    )
    dumps_per_server: int = Field(
        2,
        ge=1,
        le=32,
        description="Instances stopped for a dump of the same server at a time, over all consumers.",
    )
    down_at_once: int | None = Field(
        None,
        ge=1,
        description="Instances that moves have stopped at a time, over all servers and consumers; default: no limit "
        "but those of the servers.",
    )
    rehearse: Literal["full", "definitions", "off"] = Field(
        "full",
        description="What is moved once, to see that it can be, before an instance is stopped: full, definitions "
        "(everything but rows), or off.",
    )
    rehearse_up_to: int | None = Field(
        None,
        ge=0,
        description="Bytes; of a larger database only the definitions are rehearsed. Default: no limit.",
    )
    rehearsal_jobs: int = Field(
        2, ge=1, le=64, description="Sessions that read the pool at a time for one rehearsal."
    )
    rehearsal_restore_jobs: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Parallel jobs of a rehearsal's restore; default: REHOME_JOBS on the instance's dedicated server, "
        "where nobody works yet, else REHOME_REHEARSAL_JOBS.",
    )
    rehearsal_nice: int = Field(
        10,
        ge=0,
        le=19,
        description="How much a rehearsal's pg_dump, pg_restore and vacuumdb give way to other processes beside the "
        "consumer, for CPU and disk (as nice(1)); 0: not.",
    )
    rehearsals_per_server: int = Field(
        1,
        ge=1,
        le=32,
        description="Rehearsals that read the same pool at a time, over all consumers and commands.",
    )
    rehearsal_hours: Hours | None = Field(
        None, description="When rehearsals may begin, in UTC, such as 22:00-05:00; default: at any time."
    )
    window: Annotated[tuple[Window, ...], NoDecode] = Field(
        (),
        description="When instances may be stopped, such as 22:00-05:00 Europe/Berlin, several with commas between; "
        "without a zone UTC; default: at any time.",
    )
    strategy: Literal["auto", "cold"] = Field(
        "auto",
        description="auto: a copy follows its source while the instance serves, where servers and data allow it "
        "(docs/pools.md); cold: the data is copied after the stop.",
    )
    sync_timeout: Positive = Field(
        1800.0,
        description="Seconds that such a copy may take to catch up with its source; then the move is cold.",
    )
    sync_last_timeout: Positive = Field(
        10.0,
        description="Seconds it may take to reach the last position after the stop; then the move goes on cold.",
    )
    sync_hours: Positive = Field(
        6.0, description="Hours that a copy may follow its source altogether; then the move is cold."
    )
    sync_keep_bytes: int = Field(
        4 * 1024**3,
        ge=16 * 1024**2,
        description="Bytes of WAL that a pool may keep for such a copy; then the move is cold.",
    )
    provision_timeout: Positive = Field(600.0, description="Seconds database-service may take.")
    fence_timeout: Positive = Field(60.0, description="Seconds ending the tenant's connections may take.")
    transaction_timeout: float = Field(
        5.0,
        ge=0,
        description="Seconds the tenant's open transactions may take, with nobody new let in, before they are ended.",
    )
    cutover: Literal["careful", "quick"] = Field(
        "careful",
        description="careful: the new task starts when the old one is gone; quick: beside it, where the runtime can.",
    )
    start_timeout: Positive = Field(300.0, description="Seconds an instance may take to get healthy.")
    stop_margin: Positive = Field(30.0, description="Seconds added to a service's own stop grace period.")
    grace: Positive = Field(20.0, description="Seconds a running step may take to end at shutdown.")
    room_factor: Positive = Field(
        1.2, description="Free bytes wanted for a backup, times the database's size."
    )
    not_ready_timeout: Positive = Field(
        900.0,
        description="Seconds a customer who is down waits for a consumer that is ready; then the move is rolled back.",
    )
    retention_days: Positive = Field(
        7.0, description="Days the fenced source is kept after a completed move."
    )
    longest_retry: str | None = Field(
        None, description="A delay that replaces longer ones, such as 1s; for tests."
    )
    doctor_every: Positive = Field(
        300.0, description="Seconds between the consumer's own checks (as `rehome doctor`)."
    )
    stuck_after: Positive = Field(
        300.0, description="Seconds without a change after which a migration counts as stuck."
    )
    backup_filestore: bool = Field(default=False, description="Archive the filestore beside the backup.")

    log_format: Literal["json", "console"] = Field("json", description="Format of the log lines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level logged."
    )
    log_days: float = Field(
        30.0,
        ge=0,
        le=3650,
        description="Days for which the journal keeps the log lines of steps, for the migration's page; 0: none.",
    )
    traces: str = Field(
        "off",
        pattern=r"^(off|otlp|/.+)$",
        description="Traces of OpenTelemetry: off; otlp, to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names; or "
        "the absolute path of a file, one JSON line for each span (docs/operating.md).",
    )
    http_port: int | None = Field(
        None, ge=1, le=65535, description="Port of /healthz, /startupz, /readyz and /metrics; default: none."
    )
    http_host: str = Field(
        "127.0.0.1",
        description="Addresses for that port, with commas between; a network such as 10.0.9.0/24 is the own address in "
        "it. Besides loopback, which health checks of containers ask, one in a network that tenants cannot reach.",
    )
    console_port: int = Field(8090, ge=1, le=65535, description="Port of `rehome console` (docs/console.md).")
    console_host: str = Field(
        "127.0.0.1", description="Its addresses, in the same form; any but loopback needs tokens or a proxy."
    )
    console_tokens: SecretStr | None = Field(
        None,
        description="Who may use the console: role:name:token,..., the role is read or operator; "
        "default: whoever reaches loopback may read.",
    )
    console_tokens_file: Path | None = Field(
        None, description="File with one of them on each line, instead of REHOME_CONSOLE_TOKENS."
    )
    console_publish_url: SecretStr | None = Field(
        None,
        description="The broker as a user that may publish upgrades, to begin moves by the API; default: it does not.",
    )
    console_publish_url_file: Path | None = Field(
        None, description="File that holds it, instead of REHOME_CONSOLE_PUBLISH_URL."
    )
    console_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = Field(
        (), description="Addresses or networks of proxies that sign people in, such as 10.0.3.7,10.0.4.0/24."
    )
    console_proxy_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$",
        description="Header in which those proxies send who it is, such as X-Forwarded-User.",
    )
    console_operators: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Whom of those people may act (name,...); the others read."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_files(cls, given: Any) -> Any:
        """What stands in files instead of the environment, where whoever may look at a container reads it."""
        if not isinstance(given, dict):
            return given
        read = {}
        for name in IN_FILES:
            path = given.get(f"{name}_file")
            if path is None:
                continue
            variables = f"{PREFIX}{name.upper()}", f"{PREFIX}{name.upper()}_FILE"
            if given.get(name) is not None:
                raise ValueError("{} and {}: set one of them".format(*variables))
            try:
                read[name] = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{variables[1]}: {error}") from None
            if not read[name]:
                raise ValueError(f"{variables[1]}: {path} is empty")
        return {**given, **read}

    @field_validator("host_map", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        """`a=10.0.0.1,b=10.0.0.2:5433` as a mapping."""
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if any(not name.strip() or not address.strip() for name, _, address in pairs):
            raise ValueError("write it as name=address[:port],name=address[:port]")
        return {name.strip(): address.strip() for name, _, address in pairs}

    @field_validator("console_proxies", "console_operators", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """`a,b` as a tuple."""
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("platform_dsn", "billing_dsn", "state_dsn")
    @classmethod
    def _is_dsn(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgres://", "postgresql://")):
            raise ValueError("it must look like postgresql://user:password@host:port/database")
        return value

    @field_validator("rehearsal_hours", mode="before")
    @classmethod
    def _hours(cls, value: Any) -> Any:
        """`22:00-05:00` as `Hours`."""
        if not isinstance(value, str):
            return value
        start, dash, end = value.partition("-")
        try:
            hours = Hours(time.fromisoformat(start.strip()), time.fromisoformat(end.strip()))
        except ValueError:
            hours = None
        if hours is None or not dash or hours.start == hours.end:
            raise ValueError("write it as 22:00-05:00, in UTC; the two differ")
        return hours

    @field_validator("window", mode="before")
    @classmethod
    def _windows(cls, value: Any) -> Any:
        """`22:00-05:00 Europe/Berlin,12:00-13:00` as `Window`s."""
        if not isinstance(value, str):
            return value
        return tuple(Window.read(part) for part in value.split(",") if part.strip())

    @field_validator("longest_retry")
    @classmethod
    def _known_tier(cls, value: str | None) -> str | None:
        if value is not None and value not in TIERS:
            raise ValueError(f"there is no such delay; choose one of {', '.join(TIERS)}")
        return value

    @field_validator("runtime")
    @classmethod
    def _known_runtime(cls, value: str) -> str:
        if value != SWARM and not _PLUGGED_IN.fullmatch(value):
            raise ValueError(
                f"it is neither {SWARM} nor module:function, such as my_platform.runtime:connected"
            )
        return value

    def is_left_out(self, field: str) -> bool:
        """Whether a needed setting was not set, where the command does not need it (see `read_settings`)."""
        value = getattr(self, field)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        return text == _PLACEHOLDERS[field]

    @property
    def pg_tls(self) -> PostgresTls:
        """TLS to pool and dedicated servers.

        Raises:
            SettingsError: mode and root certificate do not go together.
        """
        return PostgresTls(self.pg_sslmode, self.pg_sslrootcert)

    @property
    def state(self) -> str:
        """DSN of the state database."""
        return (self.state_dsn or self.platform_dsn).get_secret_value()

    @property
    def has_key(self) -> bool:
        """Whether a key for secrets at rest is set."""
        return self.secret_key is not None or self.secret_key_file is not None

    def key(self) -> str:
        """The key for secrets at rest.

        Raises:
            SettingsError: neither setting is set, or the file cannot be read.
        """
        if self.secret_key is not None:
            return self.secret_key.get_secret_value()
        if self.secret_key_file is None:
            raise SettingsError(
                "REHOME_SECRET_KEY is missing (or REHOME_SECRET_KEY_FILE): 16 random characters or more"
            )
        try:
            return self.secret_key_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(f"REHOME_SECRET_KEY_FILE: {error}") from error

    def tokens(self) -> tuple[str, str]:
        """What the console's tokens are read from: the setting's name, and its text (empty: none).

        Raises:
            SettingsError: both are set, or the file cannot be read.
        """
        if self.console_tokens_file is None:
            given = self.console_tokens.get_secret_value() if self.console_tokens is not None else ""
            return "REHOME_CONSOLE_TOKENS", given
        if self.console_tokens is not None:
            raise SettingsError("REHOME_CONSOLE_TOKENS and REHOME_CONSOLE_TOKENS_FILE: set one of them")
        try:
            return "REHOME_CONSOLE_TOKENS_FILE", self.console_tokens_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"REHOME_CONSOLE_TOKENS_FILE: {error}") from error

    def policy(self) -> Policy:
        """The settings that steps use."""
        return Policy(
            fence_limit=timedelta(seconds=self.fence_timeout),
            transaction_limit=timedelta(seconds=self.transaction_timeout),
            cutover=self.cutover,
            room_factor=self.room_factor,
            dumps_per_server=self.dumps_per_server,
            down_at_once=self.down_at_once,
            retention=timedelta(days=self.retention_days),
            rehearse=self.rehearse,
            rehearse_up_to=self.rehearse_up_to,
            rehearsal_jobs=self.rehearsal_jobs,
            rehearsal_restore_jobs=self.rehearsal_restore_jobs,
            rehearsal_nice=self.rehearsal_nice,
            rehearsals_per_server=self.rehearsals_per_server,
            rehearsal_hours=self.rehearsal_hours,
            windows=self.window,
            strategy=self.strategy,
            sync_limit=timedelta(seconds=self.sync_timeout),
            sync_last=timedelta(seconds=self.sync_last_timeout),
            sync_age=timedelta(hours=self.sync_hours),
            sync_keep=self.sync_keep_bytes,
        )


ALL: Final = frozenset(Settings.model_fields)
IN_FILES: Final = ("amqp_url", "platform_dsn", "billing_dsn", "state_dsn", "console_publish_url")
"""What holds a password, and may stand in a file that the setting with `_file` behind it names."""


def read_settings(*, needed: Collection[str] = ALL) -> Settings:
    """The settings from the environment.

    Args:
        needed: the fields that the command uses; missing others get a harmless placeholder, so that
            `rehome topology check` does not require a data root. "state" is the DSN of the state database,
            whichever setting gives it.

    Raises:
        SettingsError: one line that names the setting that is missing or wrong.
    """
    try:
        return Settings()
    except ValidationError as error:
        missing = {str(item["loc"][0]) for item in error.errors() if item["type"] == "missing"}
        spare: dict[str, Any] = {name: _PLACEHOLDERS[name] for name in missing if name not in needed}
    try:
        settings = Settings(**spare)
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_complaint(item) for item in error.errors(include_input=False))
        ) from None
    if "state" in needed and "platform_dsn" in spare and settings.state_dsn is None:
        raise SettingsError(
            f"{_missing('platform_dsn')} Or set {PREFIX}STATE_DSN, where the journal is elsewhere."
        )
    return settings


def variable(name: str) -> str | None:
    """An environment variable that an operator's file names; None where it is not set."""
    return os.environ.get(name)


_PLACEHOLDERS: Final[dict[str, str]] = {
    "amqp_url": "amqp://localhost/migration",
    "platform_dsn": "postgresql://localhost/instance",
    "database_service_url": "http://not-set.invalid",
    "data_root": "/nonexistent",
    "backup_root": "/nonexistent",
}


def _complaint(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    name = f"{PREFIX}{where.upper()}" if where and not where.isupper() else where
    if item["type"] == "missing":
        return _missing(where)
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{name}: {message}" if name else message


def _missing(field: str) -> str:
    name = f"{PREFIX}{field.upper()}"
    file = f" It may stand in a file, which {name}_FILE names." if field in IN_FILES else ""
    return f"{name} is missing: {Settings.model_fields[field].description or ''}{file}"
