"""No secret anywhere that people or programs look: events, headers, the journal's plain columns, log lines."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from rehome_consumer.process.logs import formatter
from tests.fakes.site import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.schedule import Schedule

ADMIN_PASSWORD: Final = "admin-secret"
DSN: Final = f"postgresql://postgres:{ADMIN_PASSWORD}@postgres-pool-1:5432/postgres"
"""What a foreign error may quote."""
_PLAIN: Final = (PASSWORD, ADMIN_PASSWORD, "made-for-")
SECRETS: Final = tuple(
    sorted(
        {
            form
            for one in _PLAIN
            for form in (one, quote(one, safe=""), json.dumps(one)[1:-1], repr(one)[1:-1])
        }
    )
)
"""Passwords as they are, and as URLs, JSON and Python would write them."""
SAMPLE: Final = 4
"""Of so many schedules one has its log lines read."""


def no_secret(schedule: Schedule) -> Iterator[str]:
    """No password in a message or its headers, in a note, an error or a plain fact of the journal, in a log line."""
    yield from (f"there is one in {where}" for where, text in _texts(schedule) if is_secret(text))
    yield from (f"there is one in the log: {line}" for line in schedule.ear.leaks)


def is_secret(text: str) -> bool:
    """Whether there is a password in it."""
    return any(secret in text for secret in SECRETS)


def _texts(schedule: Schedule) -> Iterator[tuple[str, str]]:
    journal = schedule.journal
    for _, key, message in schedule.node.log:
        yield key, message.body.decode() + repr(message.headers)
    for row in journal.migrations.values():
        yield f"the note on {row.id}", row.reason or ""
    for step in journal.steps.values():
        yield f"the error of {step.step}", step.error or ""
    for (_, _, name), value in journal.stored_facts.items():
        if isinstance(value, bytes):
            yield f"fact {name}", value.decode()
    for one in journal.outbox:
        if one.sent is None:
            yield f"the outbox: {one.row.routing_key}", one.row.message.body.decode()


class Ear(logging.Handler):
    """Makes lines of what is logged, as the consumer does, and keeps those that hold a secret.

    Attributes:
        leaks: such lines.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.leaks: list[str] = []
        self._before = (logging.root.manager.disable, logging.root.level)
        self.setFormatter(formatter("json"))

    def emit(self, record: logging.LogRecord) -> None:
        """Read the line, which takes long to make, if there is something to be masked in it."""
        if record.exc_info or is_secret(record.getMessage()):
            line = self.format(record)
            if is_secret(line):
                self.leaks.append(line)

    def listen(self) -> None:
        """From now on."""
        self._before = (logging.root.manager.disable, logging.root.level)
        logging.disable(logging.NOTSET)
        logging.root.addHandler(self)
        logging.root.setLevel(logging.DEBUG)

    def rest(self) -> None:
        """As it was before."""
        logging.root.removeHandler(self)
        logging.disable(self._before[0])
        logging.root.setLevel(self._before[1])
