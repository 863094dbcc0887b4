"""No secret in anything readable: events, headers, the journal's plain columns, log lines."""

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
"""An error of a library may quote it."""
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
"""In one of so many schedules the log lines are checked."""


def no_secret(schedule: Schedule) -> Iterator[str]:
    """No password in a message or its headers, in a reason, an error or a plain fact of the journal, in a log line."""
    yield from (f"there is one in {where}" for where, text in _texts(schedule) if is_secret(text))
    yield from (f"there is one in the log: {line}" for line in schedule.log_check.leaks)


def is_secret(text: str) -> bool:
    """Whether there is a password in it."""
    return any(secret in text for secret in SECRETS)


def _texts(schedule: Schedule) -> Iterator[tuple[str, str]]:
    journal = schedule.journal
    for _, key, message in schedule.node.log:
        yield key, message.body.decode() + repr(message.headers)
    for row in journal.migrations.values():
        yield f"the reason of {row.id}", row.reason or ""
    for step in journal.steps.values():
        yield f"the error of {step.step}", step.error or ""
    for (_, _, name), value in journal.stored_facts.items():
        if isinstance(value, bytes):
            yield f"fact {name}", value.decode()
    for one in journal.outbox:
        if one.sent is None:
            yield f"the outbox: {one.row.routing_key}", one.row.message.body.decode()


class LogCheck(logging.Handler):
    """Formats what is logged as the consumer does, and keeps the lines with a secret.

    Attributes:
        leaks: such lines.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.leaks: list[str] = []
        self._before = (logging.root.manager.disable, logging.root.level)
        self.setFormatter(formatter("json"))

    def emit(self, record: logging.LogRecord) -> None:
        """Format the line, which takes long, only if something in it may have to be masked."""
        if record.exc_info or is_secret(record.getMessage()):
            line = self.format(record)
            if is_secret(line):
                self.leaks.append(line)

    def start(self) -> None:
        """Check from now on."""
        self._before = (logging.root.manager.disable, logging.root.level)
        logging.disable(logging.NOTSET)
        logging.root.addHandler(self)
        logging.root.setLevel(logging.DEBUG)

    def stop(self) -> None:
        """Restore the logging of before."""
        logging.root.removeHandler(self)
        logging.disable(self._before[0])
        logging.root.setLevel(self._before[1])
