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

from rehome_consumer.context import log_fields
from rehome_events.data import masked
from rehome_events.printable import visible

if TYPE_CHECKING:
    from collections.abc import MutableMapping

NOISY = ("aio_pika", "aiormq", "httpx", "httpcore", "aiohttp.access", "asyncio")
_PAIR = re.compile(r"^[a-z_]+=")
_QUOTES = ("'", '"', "\\")
_PLAIN = re.compile(r"[^ \t\r\n]+")
_QUOTED_UP_TO = (
    10_000  # characters in which quotes are looked for: that takes time in the square of a word's length
)


def configure(form: str, level: str) -> None:
    """Send all logs to standard error, as `json` or `console`, from this level up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(form))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def formatter(form: str) -> logging.Formatter:
    """Formats records as `json` or for the `console`; whatever looks like a secret is masked."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _fields,
        *([_of_its_try] if form == "json" else []),
        structlog.processors.format_exc_info,
        _without_secrets,
    ]
    renderers: list[Any] = (
        [structlog.processors.JSONRenderer()]  # in ASCII
        if form == "json"
        else [_as_shown, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=22)]
    )
    kind = _Once if form == "json" else structlog.stdlib.ProcessorFormatter
    return kind(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )


class _Once(structlog.stdlib.ProcessorFormatter):
    """A JSON line is made once for all handlers of its record."""

    def format(self, record: logging.LogRecord) -> str:
        made: str | None = record.__dict__.get("rehome_json")
        if made is None:
            made = record.__dict__["rehome_json"] = super().format(record)
        return made


def _without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Errors of libraries, and their tracebacks, may quote a URL with its password."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = masked(value)
    return event


def _of_its_try(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Whatever logs in a step: whose migration, which step and try it was, and its trace."""
    for name, value in log_fields.get().items():
        event.setdefault(name, value)
    return event


def _as_shown(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape for a terminal; a traceback's lines are indented, so that none looks like a line of the log."""
    for name, value in event.items():
        if name == "exception":
            event[name] = "\n".join(f"    {visible(line)}" for line in str(value).split("\n"))
        elif isinstance(value, str):
            event[name] = visible(value)
    return event


def _parts(text: str) -> list[str]:
    """Its words; what is in quotes is one."""
    if not any(mark in text for mark in _QUOTES):
        return _PLAIN.findall(text)  # as shlex does, which looks at each character
    try:
        return shlex.split(text) if len(text) <= _QUOTED_UP_TO else text.split()
    except ValueError:
        return text.split()


def _fields(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Split `word key=value key='two words' error=the rest of the line` into a word and fields."""
    word, _, rest = str(event["event"]).partition(" ")
    event["event"] = word
    for tag in ("error=", "why="):  # free text stands last
        head, found, tail = rest.partition(tag)
        if found:
            event[tag[:-1]] = tail
            rest = head
    parts = _parts(rest)
    loose = [part for part in parts if not _PAIR.match(part)]
    for part in parts:
        if _PAIR.match(part):
            name, _, value = part.partition("=")
            event[name] = value
    if loose:
        event["event"] = " ".join([word, *loose])
    return event
