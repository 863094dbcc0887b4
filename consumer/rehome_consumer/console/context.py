"""What every request of the console uses, and who asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from rehome_consumer.console.access import Access, Person
from rehome_consumer.console.problems import NotAllowed, NotSignedIn

if TYPE_CHECKING:
    from rehome_consumer.console.acts import Acts
    from rehome_consumer.console.broker import BrokerLink
    from rehome_consumer.console.documents import Queues
    from rehome_consumer.console.live import Live
    from rehome_consumer.network.http_server import Shared
    from rehome_consumer.operators.documents import Overview
    from rehome_consumer.operators.reader import Reader


@dataclass(frozen=True, slots=True)
class Console:
    """What the console is made of. Overview, queues and metrics are read once for all who ask in a second."""

    access: Access
    reader: Reader
    broker: BrokerLink
    live: Live
    overview: Shared[Overview]
    queues: Shared[Queues]
    metrics: Shared[bytes]
    acts: Acts


def console_of(request: Request) -> Console:
    """The console that a request is for."""
    found: Console = request.app.state.console
    return found


def reading(request: Request) -> Person:
    """Who asks, at least to read.

    Raises:
        NotSignedIn: nobody that is known.
    """
    person = console_of(request).access.person(request)
    if person is None:
        raise NotSignedIn
    request.state.person = person
    return person


def acting(request: Request) -> Person:
    """Who asks, an operator.

    Raises:
        NotSignedIn: nobody that is known.
        NotAllowed: it is not an operator.
    """
    person = reading(request)
    if not person.operator:
        raise NotAllowed(f"{person.name} may read only; this needs the role operator")
    return person


Use = Annotated[Console, Depends(console_of)]
Reads = Annotated[Person, Depends(reading)]
Operates = Annotated[Person, Depends(acting)]
