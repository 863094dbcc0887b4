"""Logs: a stable event word, then fields. JSON lines for machines, or a console form for people.

Modules log with the standard library, `log.info("step.finished step=%s seconds=%.1f", ...)`; what looks
like `key=value` in the message becomes a field of the JSON line.
"""

from __future__ import annotations

import logging
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping

NOISY = ("aio_pika", "aiormq", "httpx", "httpcore", "aiohttp.access", "asyncio")
_PAIR = re.compile(r"^[a-z_]+=")


def configure(form: str, level: str) -> None:
    """Send all logs to standard error, as `json` or `console`, from this level up."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _fields,
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=22)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _fields(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """`word key=value key='two words' error=the rest of the line` as a word and fields."""
    word, _, rest = str(event["event"]).partition(" ")
    event["event"] = word
    for mark in ("error=", "why="):  # free text stands last
        head, found, tail = rest.partition(mark)
        if found:
            event[mark[:-1]] = tail
            rest = head
    try:
        parts = shlex.split(rest)
    except ValueError:
        parts = rest.split()
    loose = [part for part in parts if not _PAIR.match(part)]
    for part in parts:
        if _PAIR.match(part):
            name, _, value = part.partition("=")
            event[name] = value
    if loose:
        event["event"] = " ".join([word, *loose])
    return event
