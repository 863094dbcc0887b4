"""Child processes that write to a log file, never outlive this process, and are stopped by their own pid."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

# The tail of a log that goes into an error: enough for the cause, short enough to be read.
_LINES_IN_ERRORS = 20


@dataclass(frozen=True)
class Child:
    """One child process.

    Attributes:
        name: for errors.
        process: asyncio's handle.
        log: file that gets its standard output and standard error.
    """

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        directory: Path | None = None,
        account: str | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> Self:
        """Start ``command`` in a session of its own, so that a Ctrl-C in the terminal does not reach it.

        The kernel sends ``death_signal`` to the child when the thread that started it ends (prctl(2),
        PR_SET_PDEATHSIG): start children from the main thread. The pid is the program's own.

        Args:
            name: for errors.
            command: program and arguments; no secrets, every user of the machine can read them.
            log: file to append standard output and standard error to.
            env: the complete environment; None passes on this process's.
            directory: working directory.
            account: user to run as; None does not change it.
            death_signal: what the child gets when this process dies.
        """
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *_dying_with_parent(account, death_signal),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                cwd=directory,
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a child that has ended gets none."""
        send_signal(self.process, number)

    def freeze(self) -> None:
        """Freeze it (SIGSTOP): connections stay open, nothing answers."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen child continue (SIGCONT)."""
        self.send(signal.SIGCONT)

    async def stop(self, number: signal.Signals = signal.SIGTERM, *, limit: float = 10.0) -> int:
        """Send it ``number`` to end it; after ``limit`` seconds SIGKILL. Returns its exit code."""
        self.send(number)
        self.thaw()
        try:
            return await asyncio.wait_for(self.process.wait(), limit)
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """End it with SIGKILL, now. Returns its exit code: -9, unless it ended by itself before."""
        self.send(signal.SIGKILL)
        return await asyncio.wait_for(self.process.wait(), 10)

    def require_alive(self) -> None:
        """Raise ChildEndedError when it has ended, with the end of its log."""
        if not self.alive:
            raise ChildEndedError(
                f"{self.name} ended with exit code {self.process.returncode}; its log ends:\n{self.tail()}"
            )

    def tail(self, lines: int = _LINES_IN_ERRORS) -> str:
        """The last lines of its log."""
        return tail(self.log, lines)


class ChildEndedError(Exception):
    """A child ended that should have been running."""


class CommandFailedError(Exception):
    """A short command exited with an error; the text names the command and has its output's end."""


def _dying_with_parent(account: str | None, death_signal: signal.Signals) -> list[str]:
    """A prefix for a command so that it ends with this process; each part becomes the next, the pid stays.

    ``setpriv`` switches to ``account`` and asks the kernel for the signal. If this process had died before
    that, the signal would never come: so the shell then checks that this process is still the parent.
    """
    prefix = ["setpriv", f"--pdeathsig={death_signal.name.removeprefix('SIG')}"]
    if account is not None:
        prefix += [f"--reuid={account}", f"--regid={account}", "--init-groups"]
    return [*prefix, "--", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())]


def send_signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal to a child that has not ended.

    Not by its own ``send_signal``: that may collect the exit code before asyncio's watcher does, which then
    reports 255.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def processes_of(pid: int) -> list[int]:
    """The pids of a running process's child processes, as they are now."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(pid: int) -> bool:
    """Whether a process has ended; a zombie, whose exit code was not collected yet, has."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def memory(pid: int, kind: Literal["VmHWM", "VmRSS"]) -> int | None:
    """Bytes of a process's own memory, at its highest (VmHWM) or now (VmRSS, proc(5)); None when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(kind)), None)


def tail(log: Path, lines: int = _LINES_IN_ERRORS) -> str:
    """The last ``lines`` lines of a text file; of a missing file, nothing."""
    with contextlib.suppress(FileNotFoundError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return ""


async def run(
    command: Sequence[str | Path],
    *,
    limit: float,
    env: Mapping[str, str] | None = None,
    account: str | None = None,
    stdin: bytes | None = None,
) -> str:
    """Run a short command to its end and return its standard output.

    Args:
        command: program and arguments; no secrets, every user of the machine can read them.
        limit: seconds; then the command is killed, with the processes of its group.
        env: the complete environment; None passes on this process's.
        account: user to run as (root only); None does not change it.
        stdin: its input; None is an empty one.

    Raises:
        CommandFailedError: it exited with an error.
        TimeoutError: it did not end within ``limit`` seconds.
    """
    process = await asyncio.create_subprocess_exec(
        *_dying_with_parent(account, signal.SIGKILL),
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        cwd=os.sep if account is not None else None,
        start_new_session=True,
    )
    program = Path(command[0]).name
    try:
        output, errors = await asyncio.wait_for(process.communicate(stdin), limit)
    except TimeoutError as error:
        raise TimeoutError(f"{program} did not end within {limit} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        lines = (errors or output).decode(errors="replace").strip().splitlines()[-_LINES_IN_ERRORS:]
        raise CommandFailedError(f"{program} exited with {process.returncode}:\n" + "\n".join(lines))
    return output.decode()
