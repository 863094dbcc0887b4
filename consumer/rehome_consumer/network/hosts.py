"""Maps the names of servers in the platform's records to addresses that this process can reach.

In production the consumer is a service on the overlay network and uses the names unchanged. Outside of
it `REHOME_HOST_MAP` maps them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Resolve = Callable[[str, int], tuple[str, int]]


_ADDRESS: Final = re.compile(
    r"(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<plain>[^\s:\[\]]+))(?::(?P<port>[0-9]{1,5}))?"
)
_SHOWN: Final = 100


def resolver(host_map: Mapping[str, str]) -> Resolve:
    """A function from (name, port) to (address, port).

    Args:
        host_map: name -> `address` or `address:port`; `name:port` as a key maps that port alone.

    Raises:
        SettingsError: an entry is not an address, or its port is not valid.
    """
    entries = {name: _address(name, text) for name, text in host_map.items()}

    def resolve(host: str, port: int) -> tuple[str, int]:
        address, mapped = entries.get(f"{host}:{port}") or entries.get(host) or (host, None)
        return address, mapped or port

    return resolve


def _address(name: str, text: str) -> tuple[str, int | None]:
    found = _ADDRESS.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 0 < port < 65536):  # noqa: PLR2004, the last TCP port
        raise SettingsError(
            f"REHOME_HOST_MAP: {name[:_SHOWN]}={text[:_SHOWN]}: write an address or address:port, an IPv6 address "
            "in brackets, a port from 1 to 65535"
        )
    return found["bracketed"] or found["plain"], port
