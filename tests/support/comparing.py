"""Two databases compared as the steps do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehome_consumer.model import EVERYTHING
from rehome_consumer.steps.support.comparing import Fingerprinted, differences

if TYPE_CHECKING:
    from rehome_consumer.model import Scope, Server
    from rehome_consumer.ports.steps import Verifier


async def compared(
    verifier: Verifier,
    source: tuple[Server, str, str],
    target: tuple[Server, str, str],
    scope: Scope = EVERYTHING,
) -> list[str]:
    """The differences of two databases; each is a server, a name and the tenant's role."""
    return await differences(
        verifier,
        Fingerprinted(*source, await verifier.fingerprint(*source, scope), scope),
        Fingerprinted(*target, await verifier.fingerprint(*target, scope), scope),
    )
