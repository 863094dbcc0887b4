"""What this project publishes: a resize, or a migration from its opening to its end."""

from typing import ClassVar, Literal

from pydantic import Field

from rehome_events.data import Code, Count, CustomerId, EventData, Message, Path, Seconds, Sha256, Utc, Word
from rehome_events.parts import Limits, Rehearsal, ServerRef, Verified


class InstanceResized(EventData):
    """The plan kept its kind of database: CPU, memory and storage are applied, nothing was moved."""

    TYPE: ClassVar[str] = "instance.resized"

    customer_id: CustomerId
    to_plan: Word = Field(
        description="Name of the plan whose limits are applied.", examples=["standard-monthly"]
    )
    plan_tier: Word = Field(description="Tier of that plan.", examples=["standard"])
    limits: Limits = Field(
        description="The limits now in force.",
        examples=[{"cpu_limit": 2.0, "memory_limit": "4G", "storage_limit": "20G"}],
    )
    before: Limits | None = Field(
        default=None,
        description="The limits until now, where they are known.",
        examples=[{"cpu_limit": 1.0, "memory_limit": "2G", "storage_limit": "10G"}],
    )
    restarted: bool = Field(description="Whether the instance was restarted for it.", examples=[True])
    warnings: tuple[Message, ...] = Field(
        default=(), description="What could not be applied, and why.", examples=[[]]
    )


class MigrationRequested(EventData):
    """A migration was opened; nothing was touched yet."""

    TYPE: ClassVar[str] = "migration.requested"

    customer_id: CustomerId
    from_plan: Word = Field(description="Name of the plan until now.", examples=["standard-monthly"])
    to_plan: Word = Field(description="Name of the plan from now on.", examples=["premium-monthly"])
    plan_tier: Word = Field(description="Tier of the new plan.", examples=["premium"])
    source: ServerRef = Field(description="The server that holds the database now.")
    target_kind: Literal["dedicated"] = Field(
        description="Kind of server that the database moves to.", examples=["dedicated"]
    )
    strategy: Literal["cold", "warm"] = Field(
        description="cold: copied while the instance is down. warm: while it serves, caught up at the end.",
        examples=["cold"],
    )
    database: Word = Field(description="Name of the database, the same on both servers.", examples=["acme"])
    database_bytes: Count = Field(description="Size of the database, in bytes.", examples=[1017118720])
    limits: Limits = Field(
        description="What the instance may use once it has moved.",
        examples=[{"cpu_limit": 4.0, "memory_limit": "8G", "storage_limit": "50G"}],
    )


class MigrationPrepared(EventData):
    """Every check that needs no downtime passed, and the dedicated server is healthy."""

    TYPE: ClassVar[str] = "migration.prepared"

    source: ServerRef = Field(description="The server that holds the database now.")
    target: ServerRef = Field(description="The dedicated server that it moves to.")
    provisioned_now: bool = Field(
        description="True when the dedicated server was made for this migration, false when it was there.",
        examples=[True],
    )
    checks: tuple[Word, ...] = Field(
        description="Names of the checks that passed, in the order in which they ran.",
        examples=[["postgres_versions", "locale", "disk_space"]],
    )
    rehearsal: Rehearsal | None = Field(
        default=None, description="How the rehearsal of the copy went, where there was one."
    )
    strategy: Literal["cold", "warm"] = Field(
        default="cold",
        description="How the data will be copied. cold: after the stop. warm: a copy follows its source until then; if "
        "that has to be given up, the data is copied cold after all, and `migration.completed` says so.",
        examples=["cold"],
    )
    strategy_reason: Message | None = Field(
        default=None, description="Why it is copied that way.", examples=["REHOME_STRATEGY is cold"]
    )
    warnings: tuple[Message, ...] = Field(
        default=(), description="What was noticed and does not stop the move.", examples=[[]]
    )


class MigrationStopped(EventData):
    """The instance is going away and its source database is fenced. Downtime has started."""

    TYPE: ClassVar[str] = "migration.stopped"

    replicas: int = Field(
        ge=0,
        le=1000,
        description="Replicas that ran before the stop; a rollback brings them back.",
        examples=[1],
    )
    stopped_at: Utc = Field(
        description="When the instance was about to be stopped; UTC.", examples=["2025-11-03T02:00:07.412Z"]
    )
    fenced_at: Utc = Field(
        description="When the source stopped accepting connections of the tenant; UTC.",
        examples=["2025-11-03T02:00:07.655Z"],
    )
    connections_ended: Count = Field(
        description="Connections that were still open and were ended.", examples=[2]
    )


class MigrationBackedUp(EventData):
    """A complete backup is on the shared storage."""

    TYPE: ClassVar[str] = "migration.backed_up"

    content: Literal["fenced_source", "before_stop"] = Field(
        default="fenced_source",
        description="fenced_source: the data as it is moved. before_stop, in a warm move: the data as it was when the "
        "copy began to follow; a backup of the fenced source is made when the instance serves again, before "
        "`migration.completed`, and replaces this one.",
        examples=["fenced_source"],
    )

    backup_id: Word = Field(description="Name of the backup, unique.", examples=["7d9f2a54-20251103T020008Z"])
    place: Path = Field(
        description="Directory of the backup on the shared storage.",
        examples=["/mnt/cephfs/backups/7d9f2a54-20251103T020008Z"],
    )
    format: Literal["directory"] = Field(
        description="Format of the backup: pg_dump's directory format.", examples=["directory"]
    )
    bytes: Count = Field(description="Size of all files of the backup, in bytes.", examples=[702545920])
    files: Count = Field(description="Number of files of the backup.", examples=[403])
    manifest_sha256: Sha256 = Field(
        description="SHA-256 of the manifest that lists every file with its size and checksum; hexadecimal.",
        examples=["2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"],
    )
    started_at: Utc = Field(
        description="When the backup started; UTC.", examples=["2025-11-03T02:00:08.020Z"]
    )
    ended_at: Utc = Field(
        description="When the backup was complete and checked; UTC.", examples=["2025-11-03T02:00:12.530Z"]
    )


class MigrationProvisioned(EventData):
    """The dedicated server has the tenant's role and an empty database under a scratch name.

    The role may not log in yet: an instance that someone else restarts finds nothing to connect to.
    """

    TYPE: ClassVar[str] = "migration.provisioned"

    target: ServerRef = Field(description="The dedicated server.")
    scratch_database: Word = Field(
        description="Name of the empty database until its data is verified.",
        examples=["acme__rehome_7d9f2a54"],
    )
    role: Word = Field(description="The tenant's role, which owns the database.", examples=["acme_user"])
    encoding: Word = Field(description="Encoding, the source's.", examples=["UTF8"])
    collation: Word = Field(description="LC_COLLATE, the source's.", examples=["C.UTF-8"])
    ctype: Word = Field(description="LC_CTYPE, the source's.", examples=["C.UTF-8"])


class MigrationConfRewritten(EventData):
    """odoo.conf and the service environment point to the dedicated server."""

    TYPE: ClassVar[str] = "migration.conf_rewritten"

    path: Path = Field(
        description="The odoo.conf that was rewritten.",
        examples=["/mnt/cephfs/odoo_instances/odoo_data_acme_7d9f2a54/conf/odoo.conf"],
    )
    backup_path: Path = Field(
        description="Backup of the old odoo.conf, kept until the migration has ended.",
        examples=["/mnt/cephfs/odoo_instances/odoo_data_acme_7d9f2a54/conf/odoo.conf.before-migration"],
    )
    changed: tuple[Word, ...] = Field(
        description="Names of the settings that changed; never their values.",
        examples=[["db_host", "db_port", "db_user", "db_password"]],
    )


class MigrationRestored(EventData):
    """The data is on the dedicated server, and verified against the fenced source."""

    TYPE: ClassVar[str] = "migration.restored"

    target: ServerRef = Field(description="The dedicated server.")
    database: Word = Field(description="Name of the database, the source's.", examples=["acme"])
    database_bytes: Count = Field(
        description="Size of the database on the dedicated server, in bytes.", examples=[964689920]
    )
    verified: Verified = Field(description="What was compared with the source, and found equal.")


class MigrationStarted(EventData):
    """The instance answers over HTTP on its new database: the point of no return is passed."""

    TYPE: ClassVar[str] = "migration.started"

    target: ServerRef = Field(description="The dedicated server.")
    url: str = Field(
        max_length=2048,
        pattern=r"^https?://[^@\s\x00]+$",
        description="Address that answered; without credentials.",
        examples=["http://odoo-acme-7d9f2a54:8069"],
    )
    healthy_at: Utc = Field(
        description="When the instance answered for the first time; downtime ends here; UTC.",
        examples=["2025-11-03T02:00:49.100Z"],
    )
    limits: Limits = Field(
        description="The limits that the instance was started with.",
        examples=[{"cpu_limit": 4.0, "memory_limit": "8G", "storage_limit": "50G"}],
    )


class MigrationCompleted(EventData):
    """The migration is over and succeeded: a summary for other services."""

    TYPE: ClassVar[str] = "migration.completed"

    customer_id: CustomerId
    plan_tier: Word = Field(description="Tier of the plan now in force.", examples=["premium"])
    source: ServerRef = Field(description="The server that held the database.")
    target: ServerRef = Field(description="The server that holds it now.")
    strategy: Literal["cold", "warm"] = Field(description="How the data was copied.", examples=["cold"])
    downtime_seconds: Seconds = Field(
        description="From the stop to the first healthy answer, in seconds.", examples=[41.688]
    )
    seconds: dict[Code, Seconds] = Field(
        description="Time spent per step, in seconds.",
        examples=[{"prepare": 151.2, "stop": 7.7, "restore": 24.1}],
    )
    database_bytes: Count = Field(description="Size of the database, in bytes.", examples=[964689920])
    backup_bytes: Count = Field(description="Size of the backup, in bytes.", examples=[702545920])
    verification_digest: Sha256 = Field(
        description="SHA-256 over what was compared of all tables, equal on both sides, as in migration.restored; "
        "hexadecimal.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
    rehearsal: Rehearsal | None = Field(
        default=None,
        description="What was measured before the stop: how long a cold copy was expected to take, beside back_up and "
        "restore in `seconds`. Null: nothing was rehearsed.",
    )
    source_retained_until: Utc = Field(
        description="Until then the fenced source database is kept; UTC.",
        examples=["2025-11-10T02:00:49.100Z"],
    )


class MigrationRejected(EventData):
    """The upgrade was refused before anything was touched."""

    TYPE: ClassVar[str] = "migration.rejected"

    to_plan: Word = Field(description="Name of the plan that was asked for.", examples=["premium-monthly"])
    reason: Code = Field(
        description="Why, as a short code: unknown_instance, terminated, never_provisioned and the like.",
        examples=["terminated"],
    )
    message: Message = Field(
        description="Why, for people.", examples=["The instance was terminated on 2025-10-30."]
    )


class MigrationFailed(EventData):
    """A step failed for good, or used up its tries."""

    TYPE: ClassVar[str] = "migration.failed"

    step: Code = Field(description="The step that failed.", examples=["restore"])
    error: Code = Field(description="Class of the error.", examples=["VerificationFailed"])
    message: Message = Field(
        description="What happened, for people; secrets are masked.",
        examples=["res_partner: 40 rows on the source, 39 on the dedicated server"],
    )
    tries: int = Field(ge=1, le=2**31 - 1, description="How often the step was tried.", examples=[5])
    next: Literal["roll_back", "operator"] = Field(
        description="roll_back: it is undone now. operator: past the point of no return, a person must look.",
        examples=["roll_back"],
    )


class MigrationRolledBack(EventData):
    """The instance runs on the shared pool again, its data untouched."""

    TYPE: ClassVar[str] = "migration.rolled_back"

    failed_step: Code = Field(description="The step that failed.", examples=["restore"])
    reason: Message = Field(
        description="Why, for people; secrets are masked.",
        examples=["res_partner: 40 rows on the source, 39 on the dedicated server"],
    )
    source: ServerRef = Field(description="The server that holds the database, as before.")
    downtime_seconds: Seconds | None = Field(
        default=None,
        description="From the stop to the first healthy answer, in seconds; missing when never stopped.",
        examples=[63.2],
    )
    undone: tuple[Code, ...] = Field(
        description="Steps that were undone, in the order of undoing.",
        examples=[["restore", "rewrite_conf", "provision", "back_up", "stop"]],
    )
    leftovers: tuple[Message, ...] = Field(
        default=(),
        description="What is left over and needs a person, with its name.",
        examples=[["dedicated server postgres-dedicated-7d9f2a54 could not be released"]],
    )
