"""Which operating system account runs a server, and what that account may reach.

PostgreSQL refuses to run as root. When this process is root, its server runs as user ``postgres`` (made by
Debian's package); otherwise as the user of this process.
"""

import os
import pwd
import shutil
import stat
from pathlib import Path

POSTGRES_ACCOUNT = "postgres"


def database_account() -> str | None:
    """The account a PostgreSQL server must be switched to, or None when it runs as this process does.

    Raises:
        LookupError: this process is root and the account does not exist.
    """
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(POSTGRES_ACCOUNT)
    except KeyError as error:
        raise LookupError(
            f"account {POSTGRES_ACCOUNT!r} does not exist: install PostgreSQL (make setup)"
        ) from error
    return POSTGRES_ACCOUNT


def give(path: Path, account: str | None) -> None:
    """Make ``account`` the owner of ``path``; None changes nothing."""
    if account is not None:
        shutil.chown(path, user=account, group=account)


def give_tree(path: Path, account: str | None) -> None:
    """Make ``account`` the owner of ``path`` and everything below it; None changes nothing."""
    if account is None:
        return
    owner = pwd.getpwnam(account)
    for folder, _, files in os.walk(path):
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        for name in files:
            os.chown(Path(folder) / name, owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def require_passage(directory: Path, account: str | None) -> None:
    """Make sure that ``account`` can get to ``directory`` through every folder above it.

    Raises:
        PermissionError: a folder on the way is closed to other accounts; names the folder.
    """
    if account is None:
        return
    owner = pwd.getpwnam(account)
    for parent in directory.resolve().parents:
        status = parent.stat()
        open_to_others = status.st_mode & stat.S_IXOTH
        open_to_group = status.st_mode & stat.S_IXGRP and status.st_gid == owner.pw_gid
        open_to_owner = status.st_mode & stat.S_IXUSR and status.st_uid == owner.pw_uid
        if not (open_to_others or open_to_group or open_to_owner):
            raise PermissionError(
                f"user {account} cannot reach {directory}: {parent} is closed to it "
                f"(mode {stat.S_IMODE(status.st_mode):o}); choose a directory such as one under /tmp"
            )
