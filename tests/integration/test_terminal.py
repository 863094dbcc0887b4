"""`rehome status`, `watch` and `report` in few columns, on a real terminal, and into a pipe."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.contract.journals import postgres_journal, state_database
from tests.support.command_line import command
from tests.support.console import seeds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from sandbox.postgres.server import Cluster

LIMIT = 60


@pytest.fixture(scope="module")
async def journal(pg: Cluster) -> AsyncIterator[tuple[str, dict[str, UUID]]]:
    """A journal with one migration of each kind, with names from tenants; these tests only read it."""
    async with state_database(pg) as dsn:
        async with postgres_journal(dsn), seeds(dsn) as made:
            found = await made.everything()
        yield dsn, found


async def rehome(dsn: str, out: int, *arguments: object) -> asyncio.subprocess.Process:
    """Start a command; `out` is its standard output, which is closed here."""
    left_out = ("REHOME_", "COLUMNS", "LINES")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rehome_consumer", *map(str, arguments),
            stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=asyncio.subprocess.PIPE,
            env={**kept, "REHOME_STATE_DSN": dsn},
        )  # fmt: skip
    finally:
        os.close(out)


async def output(process: asyncio.subprocess.Process, end: int, until: str = "") -> list[str]:
    """Lines that it writes to `end`: until its end, or until one has this; then it is ended."""
    found = b""
    try:
        async with asyncio.timeout(LIMIT):
            while chunk := await asyncio.to_thread(_read, end):
                found += chunk
                if until and until.encode() in found:
                    process.terminate()  # SIGINT is ignored by what is started in the background
                    until = ""
            await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        os.close(end)
    return found.decode().replace("\r\n", "\n").splitlines()


def _read(end: int) -> bytes:
    try:
        return os.read(end, 4096)
    except OSError:  # a terminal whose other end is closed
        return b""


async def on_terminal(dsn: str, columns: int, *arguments: object, until: str = "") -> list[str]:
    end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    return await output(await rehome(dsn, terminal, *arguments), end, until)


async def in_pipe(dsn: str, *arguments: object, until: str = "") -> list[str]:
    end, pipe = os.pipe()
    return await output(await rehome(dsn, pipe, *arguments), end, until)


async def in_columns(dsn: str, columns: int, *arguments: object) -> list[str]:
    """As where COLUMNS says so: in a process that starts fast."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REHOME_")}
    more = {"REHOME_STATE_DSN": dsn, "COLUMNS": str(columns)}
    return (await command(*arguments, environment={**kept, **more})).out.splitlines()


def harmless(lines: list[str], columns: int) -> bool:
    return bool(lines) and all(line.isprintable() and len(line) <= columns for line in lines)


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
async def test_status_fits_and_keeps_what_matters(journal: tuple[str, dict[str, UUID]], columns: int) -> None:
    dsn, found = journal
    lines = await in_columns(dsn, columns, "status", "--all")
    assert harmless(lines, columns)
    text = " ".join(" ".join(lines).split())
    for migration in found.values():
        assert f"migration {migration} " in text
    rows = [line.split() for line in lines if len(line) > 36 and line[0] != " " and line[36] == " "][1:]
    assert sorted(row[1] for row in rows) == [
        "completed", "conf_rewritten", "failed", "rejected", "requested", "rolled_back", "waiting",
    ]  # fmt: skip
    assert ("step restore running 45%" in text) == (columns < 96)
    assert "restore running 45%" in text
    assert r"\u202eevil" in text


@pytest.mark.parametrize("columns", [60, 80])
async def test_everything_about_one_fits(journal: tuple[str, dict[str, UUID]], columns: int) -> None:
    dsn, found = journal
    for name in ("status", "report"):
        lines = await in_columns(dsn, columns, name, found["failed"])
        assert harmless(lines, columns)
        text = " ".join(" ".join(lines).split())
        assert str(found["failed"]) in text
        assert "ERROR" in text
        assert ("STARTED" in text) == (columns == 80)
        assert r"\x1b[2J" in text


async def test_watch_of_one_names_it_first_and_wraps_what_happened(
    journal: tuple[str, dict[str, UUID]],
) -> None:
    dsn, found = journal
    lines = await in_columns(dsn, 80, "watch", found["rolled_back"])
    assert harmless(lines, 80)
    assert lines[0].startswith(f"migration {found['rolled_back']} of instance")
    assert "over: rolled_back" in lines[-1]


async def test_a_terminal_is_asked_for_its_width_and_a_pipe_gets_whole_rows(
    journal: tuple[str, dict[str, UUID]],
) -> None:
    dsn, _ = journal
    shown, piped = await asyncio.gather(
        on_terminal(dsn, 80, "status", "--all"), in_pipe(dsn, "status", "--all")
    )
    assert harmless(shown, 80)
    assert harmless(piped, 100)
    assert any(line.strip().startswith("step restore running 45%") for line in shown)
    (running,) = [line for line in piped if "restore running 45%" in line]
    assert running.split()[1] == "conf_rewritten"
    assert len(running.split()[0]) == 36


async def test_watch_names_an_instance_once_on_a_terminal_and_in_each_line_of_a_pipe(
    journal: tuple[str, dict[str, UUID]],
) -> None:
    dsn, _ = journal
    lines, piped = await asyncio.gather(
        on_terminal(dsn, 80, "watch", until="restore 45%"), in_pipe(dsn, "watch", until="restore 45%")
    )
    (named,) = [line for line in lines if " is instance " in line]
    short, instance = named.split(" is instance ")
    assert instance.startswith(short)
    assert len(instance) == 36
    (bar,) = [line for line in lines if "restore 45% [#########...........], about" in line]
    assert bar.startswith(f"{short}  ")
    (progress,) = [line for line in piped if "restore 45%, about" in line]
    assert progress.split()[0] == instance
    assert harmless(piped, 100)


async def test_a_reader_that_has_enough_ends_the_command_quietly(
    journal: tuple[str, dict[str, UUID]],
) -> None:
    dsn, _ = journal
    end, pipe = os.pipe()
    os.close(end)
    process = await rehome(dsn, pipe, "status", "--all")
    async with asyncio.timeout(LIMIT):
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (141, b"")
