"""What can go wrong, and what follows from it.

```
RehomeError
├── Transient                 try again later, with growing delays
│   ├── Unreachable           a server, a service or the broker does not answer
│   ├── TimedOut              a bounded wait ended; the message says what it waited for
│   ├── Conflict              another process changed the same thing in between
│   ├── ChildFailed           a client program ended with an error; carries its last lines
│   ├── FellBehind            a copy does not follow its source, or not fast enough: the move goes on without it
│   ├── TableInUse            a table of a serving customer must not be altered now: nobody waits for its lock
│   └── NotReady              this consumer lacks what every migration needs; not a try while its checks say so, too
├── Refused                   no for good: trying again changes nothing
│   ├── NotFound              the instance, service, server, file or database is not there
│   ├── Incompatible          versions, extensions, roles or room do not allow the move
│   ├── ConfUnusable          odoo.conf cannot be used as it is
│   ├── CrashLoop             the instance starts and ends again; carries its exit code and last lines
│   ├── VerificationFailed    the copy differs from its source; carries the differences
│   └── NotOurs               a database or role belongs to another migration: it is left alone
├── Queued                    it waits in line for a slot, or for a time: comes back, and it is not counted as a try
├── ClaimLost                 another consumer may be at work: stop at once, touch nothing more
└── SettingsError             a setting is missing or wrong; names it
```

Foreign errors (asyncpg, httpx, aio-pika, aiodocker, the operating system, exit codes) are translated
into this tree at the edge of the adapter that met them; the foreign message stays, without secrets.
Anything else that escapes a step counts as transient, for a few tries.
"""

from __future__ import annotations


class RehomeError(Exception):
    """Base of all errors of this project."""


class Transient(RehomeError):
    """May pass by itself: the step is tried again later."""


class Unreachable(Transient):
    """A server, a service or the broker does not answer."""


class TimedOut(Transient):
    """A bounded wait ended. The message says what was waited for, and how long."""


class Conflict(Transient):
    """Another process changed the same thing between the look and the write."""


class ChildFailed(Transient):
    """A client program (pg_dump, pg_restore) ended with an error; the message holds its last lines."""


class FellBehind(Transient):
    """A copy does not follow its source (any more), or not fast enough; the message says why."""


class TableInUse(Transient):
    """A customer's table could not be altered without keeping others from it; the message names it."""


class NotReady(Transient):
    """Something of this consumer's own is missing or wrong: a program, the backup place, a mount.

    While its readiness check confirms that, the delivery waits and no try is counted, whatever the error was.
    """


class Refused(RehomeError):
    """No for good: the step fails now, without further tries."""


class NotFound(Refused):
    """An instance, a service, a server, a file or a database is not there."""


class Incompatible(Refused):
    """Versions, extensions, roles or room do not allow the move."""


class ConfUnusable(Refused):
    """odoo.conf is missing, unreadable, read-only, or not in a form that can be edited safely."""


class CrashLoop(Refused):
    """The instance starts and ends again; the message holds its exit code and last lines."""


class VerificationFailed(Refused):
    """The copy differs from its source; the message names the first differences."""


class NotOurs(Refused):
    """A database or role carries another migration's ownership tag, or none: it is left alone."""


class Queued(RehomeError):
    """No slot is free now, or others go first; or it is not the time for it: it comes back later, not counted as a try.

    Attributes:
        next: it is among the next ones for a slot: it comes back within seconds, however long it has waited.
    """

    def __init__(self, message: str, *, next: bool = False) -> None:  # noqa: A002 - the attribute's name
        """Take the message."""
        super().__init__(message)
        self.next = next


class ClaimLost(RehomeError):
    """The claim on this instance is lost: another consumer may be at work already."""


class SettingsError(RehomeError):
    """A setting is missing or wrong; the message names it and says what to do."""
