"""Child processes, ports, waits and directories of the sandbox."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from sandbox.system.accounts import require_passage
from sandbox.system.net import accepts_connections, free_port, give_back_port, wait_until
from sandbox.system.processes import Child, ChildEndedError, CommandFailedError, run
from sandbox.system.scratch import remove_scratch_directory, scratch_directory
from tests.support.processes import have_ended, orphan_of

LIMIT = 20


async def test_a_child_process_writes_to_its_log_and_returns_its_exit_code(tmp_path: Path) -> None:
    child = await Child.start("greeter", ["sh", "-c", "echo hello; exit 3"], log=tmp_path / "log")

    assert await asyncio.wait_for(child.process.wait(), LIMIT) == 3
    assert child.tail() == "hello"


async def test_the_error_for_a_child_process_that_ended_shows_the_end_of_its_log(tmp_path: Path) -> None:
    child = await Child.start("greeter", ["sh", "-c", "echo the cause >&2; exit 3"], log=tmp_path / "log")
    await asyncio.wait_for(child.process.wait(), LIMIT)

    with pytest.raises(ChildEndedError, match=r"(?s)greeter ended with exit code 3.*the cause"):
        child.require_alive()


async def test_a_child_that_ignores_the_request_to_stop_is_killed(tmp_path: Path) -> None:
    child = await Child.start(
        "deaf", ["sh", "-c", "trap '' TERM; echo deaf; exec sleep 60"], log=tmp_path / "log"
    )

    async def printed() -> bool:
        return child.tail() == "deaf"

    await wait_until(printed, what="the child's trap", limit=LIMIT)

    assert await child.stop(limit=0.1) == -signal.SIGKILL


async def test_a_frozen_child_stops_when_asked(tmp_path: Path) -> None:
    child = await Child.start("sleeper", ["sleep", "60"], log=tmp_path / "log")
    child.freeze()

    assert await child.stop() == -signal.SIGTERM


async def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    pids = await orphan_of(
        """
        child = await Child.start("sleeper", ["sleep", "600"], log=directory / "log")
        print(child.pid, flush=True)
        """,
        directory=tmp_path,
        imports="from sandbox.system.processes import Child",
    )

    await wait_until(have_ended(*pids), what="the child to end", limit=LIMIT)


async def test_the_error_for_a_command_that_fails_shows_its_output() -> None:
    with pytest.raises(CommandFailedError, match=r"(?s)sh exited with 4.*no luck"):
        await run(["sh", "-c", "echo no luck >&2; exit 4"], limit=LIMIT)


async def test_a_command_that_takes_too_long_is_killed() -> None:
    with pytest.raises(TimeoutError, match="sleep did not end"):
        await run(["sleep", "60"], limit=0.1)


async def test_the_error_for_a_wait_that_fails_names_what_it_waited_for() -> None:
    async def never() -> bool:
        return False

    with pytest.raises(TimeoutError, match="for the moon"):
        await wait_until(never, what="the moon", limit=0.05)


async def test_a_command_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    script = 'sleep 1000 & echo $! > "$0/worker"; wait'
    with pytest.raises(TimeoutError, match="sh did not end within 2 s"):
        await run(["sh", "-c", script, tmp_path], limit=2)

    worker = int((tmp_path / "worker").read_text())
    await wait_until(have_ended(worker), what="the worker to end", limit=LIMIT)


async def test_a_port_is_given_to_one_process_only() -> None:
    script = "from sandbox.system.net import free_port; print(*(free_port() for _ in range(200)), end='', flush=True)"
    own = {free_port() for _ in range(200)}
    others = await run([sys.executable, "-c", script], limit=LIMIT)

    assert not own & {int(port) for port in others.split()}
    for port in own:
        give_back_port(port)


async def test_nothing_listens_on_a_free_port() -> None:
    port = free_port()

    assert not await accepts_connections(port)
    give_back_port(port)


def test_a_folder_that_the_user_may_not_pass_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(PermissionError, match="user nobody cannot reach"):
        require_passage(closed / "server", "nobody")


async def test_the_directory_of_a_killed_process_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    mine = scratch_directory("rehome-mine")
    await orphan_of(
        "scratch_directory('rehome-mine'); print(os.getpid(), flush=True)",
        directory=tmp_path,
        imports="from sandbox.system.scratch import scratch_directory",
    )
    assert len(_names(tmp_path)) == 2

    latest = scratch_directory("rehome-mine")

    assert _names(tmp_path) == {mine.name, latest.name}
    for directory in (mine, latest):
        remove_scratch_directory(directory)
    assert _names(tmp_path) == set()


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}
