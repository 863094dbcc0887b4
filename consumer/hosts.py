"""Names of servers, as the records have them, to addresses this process can reach.

In production the consumer is a service on the overlay network and uses the names as they are. Outside of
it `REHOME_HOST_MAP` maps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Resolve = Callable[[str, int], tuple[str, int]]


def resolver(host_map: Mapping[str, str]) -> Resolve:
    """A function from (name, port) to (address, port).

    Args:
        host_map: name -> `address` or `address:port`; `name:port` as a key maps that port alone.

    Raises:
        SettingsError: an entry's port is not a number.
    """
    entries = {name: _address(name, text) for name, text in host_map.items()}

    def resolve(host: str, port: int) -> tuple[str, int]:
        address, mapped = entries.get(f"{host}:{port}") or entries.get(host) or (host, None)
        return address, mapped or port

    return resolve


def _address(name: str, text: str) -> tuple[str, int | None]:
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, None
    if not port.isdigit():
        raise SettingsError(f"REHOME_HOST_MAP: {name}={text}: what follows the colon must be a port")
    return host, int(port)
