"""What can go wrong with events.

EventError
├── Undecodable          the bytes are not an event of this contract
│   └── UnknownType      they are an event, but of a type this release does not know
│       └── UnknownVersion   or of a version of it
├── NotAwaitable         a handler that is no coroutine function: a mistake in the program
└── BrokerError          the broker could not be talked to
    ├── Unreachable      no connection in time
    ├── Refused          the broker refused: login, permission, missing exchange, full queue
    ├── NotRouted        no queue is bound that would get the event
    └── PublishTimeout   no confirm in time: unknown whether the event arrived
"""


class EventError(Exception):
    """Base of everything that this package raises; by itself: an event that is not valid to be published."""


class Undecodable(EventError):
    """The bytes are not a valid event: the text names what is wrong, and never repeats the input."""


class UnknownType(Undecodable):
    """A well-formed event of a type that this release does not know, or not in this version."""


class UnknownVersion(UnknownType):
    """A well-formed event of a type that this release knows, in a version that it does not."""


class NotAwaitable(EventError):
    """The handler returned instead of giving something to await; the event stays in its queue."""


class BrokerError(EventError):
    """Base of what goes wrong with the broker; no text holds a password."""


class Unreachable(BrokerError):
    """No connection to the broker, after all tries."""


class Refused(BrokerError):
    """The broker refused, and would refuse again: the text says what to change."""


class NotRouted(BrokerError):
    """The event was returned: no queue is bound to its exchange with its type as routing key."""


class PublishTimeout(BrokerError):
    """The broker did not confirm in time: publish the same event again, with its id, until it does."""
