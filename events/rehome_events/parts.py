"""Values that several events share."""

from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue

from rehome_events.data import Count, Seconds, Sha256, Word

Size = Annotated[str, Field(max_length=16, pattern=r"^[0-9]{1,13}(\.[0-9]{1,3})?([KMGTkmgt][Ii]?)?[Bb]?$")]
"""An amount of memory or storage as the platform writes it: a number and a unit, ``2G`` or ``512M``."""

Kind = Literal["shared", "dedicated"]
"""Kind of a database server: a pool that many tenants share, or a server of one tenant."""


Cores = Annotated[float, Field(gt=0, lt=10_000, allow_inf_nan=False)]
"""An amount of CPU, in cores."""

_CORES_READ: Final[JsonSchemaValue] = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 10_000},
        {"type": "string", "pattern": r"^(0\.[0-9]{0,5}[1-9][0-9]{0,5}|[1-9][0-9]{0,3}(\.[0-9]{1,6})?)$"},
        {"type": "null"},
    ]
}


class Part(BaseModel):
    """A value inside a payload; frozen. Reading ignores fields that this release does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Limits(Part):
    """What an instance may use. A missing limit is not set by the plan."""

    cpu_limit: Cores | None = Field(default=None, description="CPU, in cores.", examples=[4.0])
    memory_limit: Size | None = Field(
        default=None,
        description="Memory, a number and a unit (K, M, G or T, powers of 1024).",
        examples=["8G"],
    )
    storage_limit: Size | None = Field(
        default=None,
        description="Storage, a number and a unit (K, M, G or T, powers of 1024).",
        examples=["50G"],
    )


class Entitlements(Limits):
    """What a plan grants.

    Decimals are read as numbers and as text (``"4.0"``), since libraries differ in how they write them.
    """

    cpu_limit: Annotated[Cores | None, WithJsonSchema(_CORES_READ)] = Field(
        default=None, description="CPU, in cores; a number, or a decimal number as text.", examples=[4.0]
    )
    db_type: Kind | None = Field(
        default=None, description="Kind of database that the plan grants.", examples=["dedicated"]
    )


class ServerRef(Part):
    """A PostgreSQL server: where it is, never how to log in."""

    id: UUID = Field(
        description="The server's id in db_servers.", examples=["0b6c1d7e-8f90-4a1b-b2c3-d4e5f6071829"]
    )
    name: Word = Field(description="The server's unique name.", examples=["postgres-dedicated-7d9f2a54"])
    host: Word = Field(
        description="Name under which the server is reached inside the platform's network.",
        examples=["postgres-dedicated-7d9f2a54"],
    )
    port: int = Field(ge=1, le=65535, description="TCP port.", examples=[5432])
    kind: Kind = Field(description="A shared pool, or a server of one tenant.", examples=["dedicated"])
    postgres_version: Word | None = Field(
        default=None, description="PostgreSQL version as the server reports it.", examples=["15.14"]
    )


class Rehearsal(Part):
    """A move of the data that was tried while the instance served, and how long it took: the forecast."""

    mode: Literal["full", "definitions"] = Field(
        description="full: all of it. definitions: everything but the rows.", examples=["full"]
    )
    database_bytes: Count = Field(description="Size of the database, in bytes.", examples=[1017118720])
    dump_seconds: Seconds = Field(description="Seconds that the dump took.", examples=[6.1])
    restore_seconds: Seconds = Field(
        description="Seconds that the restore took; meanwhile the source was read for the comparison.",
        examples=[21.4],
    )
    compare_seconds: Seconds = Field(description="Seconds that reading the copy took.", examples=[4.2])


class Verified(Part):
    """What was compared between the source and the new database, and found equal."""

    tables: Count = Field(description="Tables compared.", examples=[402])
    rows: Count = Field(description="Rows, counted exactly on both sides.", examples=[518204])
    sequences: Count = Field(description="Sequences compared.", examples=[278])
    indexes: Count = Field(description="Indexes compared.", examples=[1104])
    constraints: Count = Field(description="Constraints compared.", examples=[2417])
    extensions: Count = Field(description="Extensions compared.", examples=[3])
    digest: Sha256 = Field(
        description="SHA-256 over what was compared of all tables, equal on both sides: contents, but only the number "
        "of rows where nothing was written since a warm copy began; hexadecimal.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
