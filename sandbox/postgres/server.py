"""Private PostgreSQL servers: each a directory and a port, listening on loopback alone."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote

from sandbox.postgres.connections import open_connection
from sandbox.postgres.files import SUPERUSER, initialise, is_ready, programs, write_settings
from sandbox.system.accounts import database_account, give, give_tree, require_passage
from sandbox.system.net import LOOPBACK, free_port, give_back_port, wait_until
from sandbox.system.processes import Child, ended, processes_of, run

if TYPE_CHECKING:
    import asyncpg

__all__ = ["SUPERUSER", "Cluster", "programs"]

_STOP_SIGNALS: Mapping[str, signal.Signals] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


@dataclass
class Cluster:
    """One PostgreSQL server with its data directory. Made by `create` or `unpack`, then started.

    Attributes:
        directory: holds ``data`` (the server's own), ``server.log`` and ``sandbox.conf``.
        port: its TCP port on loopback; it listens nowhere else, not even on a Unix socket.
        password: the superuser's.
        settings: server settings on top of the sandbox's own; `configure` changes them.
        programs: directory of the server's programs, which its user must reach.
    """

    directory: Path
    port: int
    password: str = field(repr=False)
    settings: dict[str, str] = field(default_factory=dict)
    host: str = LOOPBACK
    programs: Path = field(default_factory=programs)
    _child: Child | None = field(default=None, repr=False)

    @classmethod
    async def create(
        cls,
        directory: Path,
        *,
        password: str,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        programs: Path | None = None,
    ) -> Self:
        """Initialise a new server in ``directory`` (made if missing), which is not started yet.

        As root the server runs as user ``postgres``, who becomes the directory's owner.

        Args:
            directory: its place; the server's user must be able to pass through every folder above.
            password: the superuser's password, any text of at least one character.
            port: a port of the caller's choice; by default a free one.
            settings: for ``postgresql.conf``; they override the sandbox's defaults.
            programs: of the wanted PostgreSQL version; by default the newest installed.

        Raises:
            FileExistsError: the directory holds a server already.
            FileNotFoundError: PostgreSQL is not installed.
            PermissionError: the server's user cannot reach the directory.
        """
        cluster = cls._place(directory, port, password, settings)
        if programs is not None:
            cluster.programs = programs
        await initialise(cluster.directory, password, database_account(), cluster.programs)
        cluster.configure()
        return cluster

    @classmethod
    async def unpack(
        cls,
        archive: Path,
        directory: Path,
        *,
        password: str,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        programs: Path | None = None,
    ) -> Self:
        """Make a server from what `pack` wrote; arguments and errors as for `create`.

        ``password`` is the one that the packed server had.
        """
        cluster = cls._place(directory, port, password, settings)
        if programs is not None:
            cluster.programs = programs
        await run(
            ["tar", "--extract", "--no-same-owner", f"--file={archive}", f"--directory={cluster.directory}"],
            limit=120,
        )
        await asyncio.to_thread(give_tree, cluster.data, database_account())
        cluster.configure()
        return cluster

    async def pack(self, archive: Path) -> None:
        """Write the data of this server, which must be stopped, to an uncompressed tar file."""
        await run(
            ["tar", "--create", f"--file={archive}", f"--directory={self.directory}", self.data.name],
            limit=120,
        )

    @classmethod
    def _place(
        cls, directory: Path, port: int | None, password: str, settings: Mapping[str, str] | None
    ) -> Self:
        if (directory / "data").exists():
            raise FileExistsError(f"{directory} holds a PostgreSQL server already")
        account = database_account()
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        require_passage(directory, account)
        give(directory, account)
        return cls(directory.resolve(), port or free_port(), password, dict(settings or {}))

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.directory / "server.log"

    @property
    def running(self) -> bool:
        """Whether the server's main process is running."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int:
        """The pid of the server's main process.

        Raises:
            RuntimeError: it was not started.
        """
        return self._started().pid

    def configure(self, **settings: str) -> None:
        """Set server settings for the next start, for example ``wal_level="replica"``."""
        self.settings.update(settings)
        write_settings(self.directory, self.port, self.settings, database_account())

    async def start(self, *, limit: float = 60.0) -> None:
        """Start the server and wait until it takes connections; a running one is left alone.

        The server ends (immediate shutdown) when the thread that called this ends.

        Raises:
            ChildEndedError: it ended instead of starting; the error has the end of its log.
            TimeoutError: it was not ready within ``limit`` seconds.
        """
        if self.running:
            return
        child = await Child.start(
            f"PostgreSQL on port {self.port}",
            [self.programs / "postgres", "-D", self.data],
            log=self.log,
            directory=self.directory,
            account=database_account(),
            death_signal=signal.SIGQUIT,
        )
        self._child = child

        async def ready() -> bool:
            child.require_alive()
            return is_ready(self.data, child.pid)

        await wait_until(ready, what=f"{child.name} to take connections", limit=limit)

    async def stop(self, mode: Literal["fast", "immediate"] = "fast", *, limit: float = 30.0) -> None:
        """Stop the server: ``fast`` closes connections cleanly, ``immediate`` leaves recovery to the next start."""
        if self._child is not None:
            await self._child.stop(_STOP_SIGNALS[mode], limit=limit)
            self._child = None

    async def kill(self) -> None:
        """Kill every process of the server (SIGKILL), as a crash of its machine would; `start` recovers."""
        server = self._started()
        server.freeze()  # so that it forks no more while its child processes are listed
        backends = processes_of(server.pid)
        await server.kill()
        for backend in backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(backend, signal.SIGKILL)

        async def all_ended() -> bool:
            return all(ended(backend) for backend in backends)

        await wait_until(all_ended, what=f"the processes of {server.name} to end", limit=10)

    def freeze(self) -> None:
        """Freeze the main process (SIGSTOP): new connections get no answer, old ones continue."""
        self._started().freeze()

    def thaw(self) -> None:
        """Let a frozen main process continue."""
        self._started().thaw()

    async def destroy(self) -> None:
        """Stop the server, remove its directory and give back its port."""
        await self.stop("immediate")
        await asyncio.to_thread(shutil.rmtree, self.directory)
        give_back_port(self.port)

    def dsn(self, database: str = "postgres", *, user: str = SUPERUSER, password: str | None = None) -> str:
        """A connection URL; it contains the password (by default the superuser's), so keep it out of logs."""
        secret = quote(self.password if password is None else password, safe="")
        return (
            f"postgresql://{quote(user, safe='')}:{secret}@{self.host}:{self.port}/{quote(database, safe='')}"
        )

    @contextlib.asynccontextmanager
    async def connect(
        self, database: str = "postgres", *, user: str = SUPERUSER, password: str | None = None
    ) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """Open a connection for the length of an ``async with`` block; by default the superuser's."""
        connection = await open_connection(
            host=self.host,
            port=self.port,
            database=database,
            user=user,
            password=self.password if password is None else password,
            timeout=10,
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=10)

    def _started(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"PostgreSQL in {self.directory} was not started")
        return self._child
