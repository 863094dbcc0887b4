"""A pool server with Odoo tenants, ready in a second or two: unpacked from a cache instead of restored.

The cache holds one server's packed data with Odoo's demonstration database in it, as a template. It is made
when it is missing, and again when the dump, this code or PostgreSQL changes.
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.postgres.databases import create_database, create_role, quoted
from sandbox.postgres.server import SUPERUSER, Cluster
from sandbox.postgres.server import programs as newest_programs
from sandbox.postgres.tenants import ODOO_DUMP, Tenant, create_odoo_tenant, set_uuid
from sandbox.system.processes import run
from sandbox.system.scratch import remove_scratch_directory, scratch_directory

_TEMPLATE = "odoo_template"
_CODE = ("pool.py", "tenants.py", "databases.py", "server.py", "files.py")
_SMALL_LOG = {"max_wal_size": "48MB", "min_wal_size": "32MB"}  # what is not there is not packed
_SECONDS_UNUSED_ENTRIES_STAY = 7 * 24 * 3600


async def start_odoo_pool(
    directory: Path,
    tenants: Sequence[Tenant],
    *,
    password: str,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
    programs: Path | None = None,
) -> Cluster:
    """Start a server that holds the given tenants, each with Odoo's demonstration data.

    Besides them there is the database ``odoo_template`` that they are copied from: it takes no connections.

    Args:
        directory: the server's place, as for `Cluster.create`.
        tenants: the first ones; `add_odoo_tenant` adds more later.
        password: the superuser's.
        port: a port of the caller's choice; by default a free one.
        settings: for ``postgresql.conf``.
        programs: of the wanted PostgreSQL version; by default the newest installed.

    Raises:
        OSError: the cache directory cannot be written.
    """
    packed = await packed_server(programs)
    cluster = await Cluster.unpack(
        packed.archive,
        directory,
        password=packed.password,
        port=port,
        settings=settings,
        programs=programs,
    )
    await cluster.start()
    await set_password(cluster, password)
    for tenant in tenants:
        await add_odoo_tenant(cluster, tenant)
    return cluster


async def set_password(cluster: Cluster, password: str) -> None:
    """Give the superuser of a packed server, which runs, a password of its own."""
    await create_role(cluster, SUPERUSER, password)
    cluster.password = password


async def add_odoo_tenant(pool: Cluster, tenant: Tenant) -> None:
    """Add a tenant with Odoo's demonstration data to a server that `start_odoo_pool` started."""
    await create_role(pool, tenant.role, tenant.password)
    await create_database(
        pool, tenant.database, owner=tenant.role, template=_TEMPLATE, options="STRATEGY file_copy"
    )
    async with pool.connect(tenant.database) as connection:
        await connection.execute(f"REASSIGN OWNED BY {quoted(_TEMPLATE)} TO {quoted(tenant.role)}")
    await set_uuid(pool, tenant)


def cache_directory() -> Path:
    """The directory of ready-made servers: ``$XDG_CACHE_HOME/rehome``, by default ``~/.cache/rehome``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rehome"


@dataclass(frozen=True)
class PackedServer:
    """A server's data as a tar file.

    Attributes:
        archive: see `Cluster.pack`.
        password: of its superuser, until `set_password`.
    """

    archive: Path
    password: str = field(repr=False)


async def packed_server(programs: Path | None = None) -> PackedServer:
    """The cache's server for the present dump, code and PostgreSQL, made if missing.

    Its superuser's password is part of the file's name: it is valid from the start of an unpacked server until
    the caller's own is set, a moment later.
    """
    archive = await _archive(programs or newest_programs())
    return PackedServer(archive, archive.name.split(".")[1])


async def _archive(programs: Path) -> Path:
    fingerprint = _fingerprint(await run([programs / "postgres", "--version"], limit=10))
    cache = cache_directory()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    for archive in cache.glob(f"odoo-pool-{fingerprint}.*.tar"):
        archive.touch()
        return archive
    return await _build(cache, f"odoo-pool-{fingerprint}", programs)


def _fingerprint(version: str) -> str:
    digest = hashlib.sha256(version.encode())
    for file in (ODOO_DUMP, *(Path(__file__).parent / name for name in _CODE)):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


async def _build(cache: Path, name: str, programs: Path) -> Path:
    """Make a server with the template, and put it packed into the cache.

    Several processes may do this at once: each builds its own, under a name of its own, and a file gets
    its final name only when it is complete.
    """
    password = secrets.token_hex(16)
    scratch = scratch_directory("rehome-pool")
    unfinished = cache / f"unfinished-{secrets.token_hex(8)}.tar"
    try:
        cluster = await Cluster.create(
            scratch / "server", password=password, settings=_SMALL_LOG, programs=programs
        )
        await cluster.start()
        try:
            await create_odoo_tenant(cluster, Tenant(_TEMPLATE, password=secrets.token_hex(16)))
            async with cluster.connect() as connection:
                await connection.execute(f"ALTER DATABASE {_TEMPLATE} OWNER TO postgres")
                await connection.execute(f"ALTER ROLE {_TEMPLATE} NOLOGIN")
                await connection.execute(f"ALTER DATABASE {_TEMPLATE} ALLOW_CONNECTIONS false")
        finally:
            await cluster.stop()
        await cluster.pack(unfinished)
        archive = unfinished.rename(cache / f"{name}.{password}.tar")
        _remove_unused(cache)
    finally:
        unfinished.unlink(missing_ok=True)
        await asyncio.to_thread(remove_scratch_directory, scratch)
    return archive


def _remove_unused(cache: Path) -> None:
    for archive in cache.glob("*.tar"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - archive.stat().st_mtime > _SECONDS_UNUSED_ENTRIES_STAY:
                archive.unlink()
