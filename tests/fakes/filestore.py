"""Filestores that are there or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.model import Instance


class FakeFilestore:
    """Port `Filestore`.

    Attributes:
        enabled: whether archiving is asked for.
        stores: instances that have a filestore, with its content.
        archives: content of every archive, by path.
        backup_root: where they pretend to be.
    """

    def __init__(self, *, enabled: bool = False, backup_root: Path = Path("/srv/backups")) -> None:
        self.enabled = enabled
        self.backup_root = backup_root
        self.stores: dict[UUID, dict[str, bytes]] = {}
        self.archives: dict[Path, dict[str, bytes]] = {}

    async def archive(self, instance: Instance, backup_id: str) -> Path | None:
        if not self.enabled:
            return None
        path = self.backup_root / f"{backup_id}-filestore.tar"
        if path not in self.archives:
            if instance.id not in self.stores:
                return None
            self.archives[path] = dict(self.stores[instance.id])
        return path
