"""Client programs run under a reaper: with limits, ended with everything they started, errors without data."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from rehome_consumer.adapters.common import subprocesses
from rehome_consumer.errors import ChildFailed, NotReady, TimedOut
from sandbox.system.net import wait_until

SHELL = "/bin/sh"

# A program with a worker: both write their pids, and wait.
FAMILY = 'echo $$ > "$1/parent"; (echo $(exec sh -c \'echo $PPID\') > "$1/worker"; exec sleep 1000) & wait'
STUBBORN_FAMILY = f"trap '' TERM; {FAMILY}; sleep 1000"
# The worker is in a session of its own, as su(1) makes one: no signal to the program's group reaches it.
FAMILY_APART = """
echo $$ > "$1/parent"
setsid sh -c 'trap "" TERM; echo $$ > "$0/worker"; while :; do sleep 1; done' "$1" & wait
"""
FAMILIES = pytest.mark.parametrize(
    "family", [FAMILY, STUBBORN_FAMILY, FAMILY_APART], ids=["obedient", "stubborn", "in another session"]
)


def is_alive(pid: int) -> bool:
    try:
        return _status(pid)[0] != "Z"
    except FileNotFoundError:
        return False


def parent_of(pid: int) -> int:
    return int(_status(pid)[1])


def _status(pid: int) -> list[str]:
    """State, parent and what else follows the name in /proc/<pid>/stat (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


async def pids(directory: Path) -> list[int]:
    """The family's pids, once both are there."""
    files = [directory / "parent", directory / "worker"]

    async def written() -> bool:
        return all(file.exists() and file.read_text().strip() for file in files)

    await wait_until(written, what="the family to write its pids", limit=20)
    return [int(file.read_text()) for file in files]


async def require_ended(family: list[int]) -> None:
    async def ended() -> bool:
        return not any(map(is_alive, family))

    await wait_until(ended, what="the family to end", limit=20)


async def test_a_programs_output_is_returned() -> None:
    output = await subprocesses.run(
        [SHELL, "-c", "echo $GREETING"], env={"GREETING": "hello"}, limit=20, what="greeting"
    )
    assert output == "hello\n"


async def test_a_program_gets_only_the_environment_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REHOME_SECRET_KEY", "secret")
    output = await subprocesses.run(["/usr/bin/env"], env={"PGPASSWORD": "s"}, limit=20, what="looking")
    assert {line.partition("=")[0] for line in output.splitlines()} == {"LC_ALL", "PATH", "PGPASSWORD"}


async def test_an_error_has_the_programs_own_lines_and_no_row_of_the_tenants(tmp_path: Path) -> None:
    program = tmp_path / "pg_restore"
    program.write_text(
        "#!/bin/sh\n"
        'echo \'pg_restore: error: COPY failed for table "t": ERROR:  invalid input: "4111 1111"\' >&2\n'
        "echo 'DETAIL:  Key (login)=(anna) already exists.' >&2\n"
        "echo 'CONTEXT:  COPY t, line 1: \"anna secret\"' >&2\n"
        "echo 'pg_restore: warning: errors ignored' >&2\n"
        "exit 3\n"
    )
    program.chmod(0o755)
    with pytest.raises(ChildFailed) as raised:
        await subprocesses.run([program], env={}, limit=20, what="restoring acme")
    message = str(raised.value)
    assert message.startswith("restoring acme: pg_restore ended with exit code 3: ")
    assert 'COPY failed for table "t": ERROR:  invalid input: ...' in message
    assert not any(data in message for data in ("4111", "anna", "secret"))


@pytest.mark.parametrize("nice", [0, 7])
async def test_a_program_gives_way_as_much_as_it_is_told(nice: int) -> None:
    """Its niceness, and that of its session, where Linux groups processes by it (sched(7), "autogroup")."""
    output = await subprocesses.run(
        [SHELL, "-c", "nice; cat /proc/self/autogroup 2>&1"], env={}, limit=20, what="x", nice=nice
    )
    expected = os.getpriority(os.PRIO_PROCESS, 0) + nice
    niceness, _, autogroup = output.partition("\n")
    assert int(niceness) == expected
    if "autogroup-" in autogroup:
        assert nice == 0 or autogroup.split()[-1] == str(expected)


async def test_errors_without_the_programs_name_are_quoted_as_they_are() -> None:
    with pytest.raises(ChildFailed, match="exit code 1: error while loading shared libraries"):
        await subprocesses.run(
            [SHELL, "-c", "echo error while loading shared libraries >&2; exit 1"], env={}, limit=20, what="x"
        )


async def test_much_output_does_not_fill_the_memory() -> None:
    output = await subprocesses.run(
        [SHELL, "-c", "head -c 8000000 /dev/zero; head -c 8000000 /dev/zero >&2"], env={}, limit=60, what="x"
    )
    assert len(output) == 1024 * 1024


async def test_a_missing_program_is_named() -> None:
    with pytest.raises(NotReady, match=r"/nowhere/pg_dump.*REHOME_PG_BIN"):
        await subprocesses.run([Path("/nowhere/pg_dump")], env={}, limit=20, what="dumping")


@FAMILIES
async def test_a_program_that_takes_too_long_is_ended_with_its_workers(tmp_path: Path, family: str) -> None:
    with pytest.raises(TimedOut, match="waiting: sh did not end within 2 s"):
        await subprocesses.run([SHELL, "-c", family, "sh", tmp_path], env={}, limit=2, what="waiting")
    await require_ended(await pids(tmp_path))


@pytest.mark.timeout(60)
async def test_a_program_that_prints_while_it_is_ended_does_not_delay_its_end() -> None:
    noisy = "trap '' TERM; while :; do head -c 1000000 /dev/zero; done"
    with pytest.raises(TimedOut):
        await subprocesses.run([SHELL, "-c", noisy], env={}, limit=1, what="waiting")


@FAMILIES
async def test_a_cancelled_program_is_ended_with_its_workers(tmp_path: Path, family: str) -> None:
    running = asyncio.create_task(
        subprocesses.run([SHELL, "-c", family, "sh", tmp_path], env={}, limit=100, what="waiting")
    )
    found = await pids(tmp_path)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await require_ended(found)


# A process like the consumer, which is killed.
PARENT = """
import asyncio, sys
from rehome_consumer.adapters.common import subprocesses
asyncio.run(subprocesses.run(["/bin/sh", "-c", sys.argv[1], "sh", sys.argv[2]], env={}, limit=100, what="x"))
"""


@FAMILIES
async def test_when_the_consumer_is_killed_its_programs_end(tmp_path: Path, family: str) -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, family, str(tmp_path))
    try:
        found = await pids(tmp_path)
    finally:
        parent.kill()
        await parent.wait()
    await require_ended(found)


async def test_when_the_reaper_is_killed_its_program_is_ended(tmp_path: Path) -> None:
    running = asyncio.create_task(
        subprocesses.run([SHELL, "-c", FAMILY, "sh", tmp_path], env={}, limit=100, what="waiting")
    )
    found = await pids(tmp_path)
    os.kill(parent_of(found[0]), signal.SIGKILL)
    with pytest.raises(ChildFailed, match="-9"):
        await running
    await require_ended(found)
