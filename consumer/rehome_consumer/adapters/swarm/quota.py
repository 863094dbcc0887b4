"""The storage limit of an instance: a quota of CephFS on its directory, where there is CephFS."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from rehome_consumer.adapters.common.bounded_thread import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUOTA = "ceph.quota.max_bytes"
"""Extended attribute; the same as `setfattr -n ceph.quota.max_bytes -v BYTES DIRECTORY` (source: CephFS)."""

STORAGE_SECONDS = 30.0

_REASONS = {
    errno.EOPNOTSUPP: "the file system is not CephFS",
    errno.ENOENT: "there is no such directory on this node",
    errno.EPERM: "the storage does not allow it; the client needs the capability 'p'",
    errno.EACCES: "the storage does not allow it; the client needs the capability 'p'",
}


async def enforce(directory: Path, size: int, limit: str) -> str | None:
    """Limit the directory to `size` bytes; returns a warning where that cannot be done.

    Args:
        directory: of the instance.
        size: bytes.
        limit: the same as the plan writes it, for the warning.

    Raises:
        TimedOut: the storage did not answer.
    """

    def work(still_wanted: Callable[[], None]) -> None:
        still_wanted()
        os.setxattr(directory, QUOTA, str(size).encode())

    try:
        await in_thread(work, f"setting {QUOTA} of {directory}", STORAGE_SECONDS)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        return f"the storage limit {limit} is not enforced on {directory}: {reason}"
    return None
