"""The backup place: sealed backups, the filestore, and the inventory of both."""
