"""Releases of PostgreSQL."""

from consumer.errors import Incompatible


def require_patched_server(version_num: int, where: str) -> None:
    """Refuse old ones."""
    if version_num < 140000:
        raise Incompatible(f"{where} is too old")
