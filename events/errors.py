"""What can be wrong with an event.

EventError
└── Undecodable          the bytes are not an event of this contract
    └── UnknownType      they are an event, but of a type or version this release does not know
"""


class EventError(Exception):
    """Base of everything that the contract raises."""


class Undecodable(EventError):
    """The bytes are not a valid event: the text names what is wrong, and never repeats the input."""


class UnknownType(Undecodable):
    """A well-formed event of a type or version that this release does not know."""
