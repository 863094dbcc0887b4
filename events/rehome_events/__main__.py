"""The contract on the command line: ``python -m rehome_events --help``.

Exit codes: 0 done, or the check found nothing; 1 the check found something, or an error; 2 wrong usage.
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from uuid import UUID

import orjson

from rehome_events.catalog import all_in_use, lookup
from rehome_events.envelope import CONTENT_TYPE, decode
from rehome_events.errors import EventError
from rehome_events.printable import Parser, visible, visible_json
from rehome_events.testing.checks import unknown_fields
from rehome_events.testing.expectations import expected, unmet
from rehome_events.testing.stories import DISORDERS, OUTCOMES, Story
from rehome_events.tools import asyncapi, history, page, released, schema, typescript
from rehome_events.tools.conform import conform
from rehome_events.tools.mock import play

_URL_VARIABLE: Final = "EVENTS_AMQP_URL"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    logging.getLogger("aiormq").addHandler(logging.NullHandler())  # what it says, the error says better
    try:
        code: int = chosen.run(chosen)
    except EventError as error:
        _print(f"error: {error}", error=True)
        return 1
    except OSError as error:
        _print(f"error: {error}", error=True)
        return 1 if isinstance(error, ConnectionError | TimeoutError) else 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m rehome_events", description="The contract of the migration's events.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(run=run)
        return command

    listing = add("list", _list, "List the types of events.")
    listing.add_argument("--json", action="store_true", help="as JSON")

    validate = add("validate", _validate, "Check that files hold valid events (structured mode, JSON).")
    validate.add_argument("files", nargs="+", metavar="FILE", help="a file, or - for standard input")

    examples = add("example", _example, "Print an example of an event, such as for a first test.")
    examples.add_argument("type", help="a type, such as migration.completed")
    examples.add_argument("--version", type=int, help="which version of it; default: the newest")
    examples.add_argument("--minimal", action="store_true", help="with the required fields only")

    schemas = add(
        "schema", _schema, "Print the JSON Schema of a type, or write or check the committed schemas."
    )
    schemas.add_argument("type", nargs="?", help="a type, such as migration.completed")
    schemas.add_argument("--version", type=int, help="which version of it; default: the newest")
    _choice(schemas).add_argument(
        "--release", action="store_true", help="release the present schemas; refuses a breaking change"
    )

    documents = add(
        "asyncapi",
        _asyncapi,
        "Print the AsyncAPI 3 document with its schemas in it, or write or check the committed one, which names the "
        "schemas' files.",
    )
    _choice(documents).add_argument(
        "--bundle", action="store_true", help="print it, with its schemas in it; the default"
    )
    types = add(
        "typescript",
        _typescript,
        "Print the types for TypeScript, or write or check the committed ones, events.d.ts.",
    )
    _choice(types)
    pages = add(
        "page",
        _page,
        "Print the page docs/events.md, or write or check it, docs/events.html and docs/events-changes.md.",
    )
    _choice(pages).add_argument("--html", action="store_true", help="print it in HTML")

    expectations = add(
        "expectations",
        _expectations,
        "Check that the contract has what files of subscribers' expectations need.",
    )
    expectations.add_argument("files", nargs="+", metavar="FILE", help="JSON, see docs/subscribing.md")

    conform = add(
        "conform",
        _conform,
        "Check that a program publishes as the contract says: it is run four times, twice with a queue for its event, "
        "where it must end with exit code 0, and twice without one, where it must not. "
        f"{_URL_VARIABLE} names a broker for tests, in whose vhost no queue is bound for the event; "
        "the program reads the same variable.",
    )
    conform.add_argument("--type", default="plan.upgraded", help="type of the event; default: plan.upgraded")
    conform.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="for each run; default: 30"
    )
    conform.add_argument(
        "program", nargs="+", metavar="PROGRAM", help="after --: a program and its arguments"
    )

    mock = add(
        "mock",
        _mock,
        f"Publish the events of a made-up migration on the test broker that {_URL_VARIABLE} names.",
    )
    mock.add_argument("--outcome", choices=OUTCOMES, default="completed", help="how the migration ends")
    mock.add_argument("--disorder", choices=DISORDERS, default="in order", help="what happens to the events")
    mock.add_argument("--instance", type=UUID, metavar="UUID", help="id of the instance; default: a new one")
    mock.add_argument("--pause", type=float, default=0.0, metavar="SECONDS", help="between two events")
    mock.add_argument("--force", action="store_true", help="even on a broker that has the consumer's queues")
    return parser


def _choice(command: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    choice = command.add_mutually_exclusive_group()
    choice.add_argument("--write", action="store_true", help="write the committed files again")
    choice.add_argument(
        "--check", action="store_true", help="compare with the committed files; exit code 1 if they differ"
    )
    return choice


def _list(chosen: argparse.Namespace) -> int:
    rows = [
        {
            "type": entry.type,
            "version": entry.version,
            "exchange": entry.exchange,
            "published_by": entry.published_by,
            "readers": list(entry.readers),
            "summary": entry.summary,
        }
        for entry in all_in_use()
    ]
    if chosen.json:
        _print_json(rows)
    else:
        for row in rows:
            _print(f"{row['type']:<26} v{row['version']}  {row['exchange']:<10} {row['summary']}")
    return 0


def _validate(chosen: argparse.Namespace) -> int:
    return max([_validate_one(name) for name in chosen.files])


def _validate_one(name: str) -> int:
    body = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    label = "standard input" if name == "-" else name
    try:
        event = decode(body, CONTENT_TYPE)
    except EventError as error:
        _print(f"{label}: not valid: {error}")
        return 1
    _print(f"{label}: valid {event.type} v{event.data.VERSION}")
    for path in unknown_fields(orjson.loads(body)):
        _print(f"{label}: warning: {path} is not in the contract and will be ignored", error=True)
    return 0


def _example(chosen: argparse.Namespace) -> int:
    entry = lookup(chosen.type, chosen.version)
    examples = schema.golden(entry.type, entry.version, "valid")
    _print_json(examples["minimal" if chosen.minimal else "full"])
    return 0


def _schema(chosen: argparse.Namespace) -> int:
    if chosen.write:
        return _changed([str(file) for file in schema.write()])
    if chosen.release:
        if broken := history.incompatible(history.past()):
            raise EventError("not released: " + "; ".join(broken))
        return _changed(released.release())
    if chosen.check:
        past = history.past()
        _print(f"schemas: {past.note}", error=True)
        return _differences(
            [
                *schema.drift(),
                *released.tampered(),
                *released.unlocked(),
                *released.incompatible(),
                *history.incompatible(past),
            ]
        )
    if chosen.type:
        entry = lookup(chosen.type, chosen.version)
        _copy(schema.render(schema.load(entry.type, entry.version)).decode())
        return 0
    _print("error: name a type, or --write, --check or --release", error=True)
    return 2


def _asyncapi(chosen: argparse.Namespace) -> int:
    if chosen.write or chosen.check:
        return _write_or_check({asyncapi.FILE: asyncapi.render(asyncapi.generate())}, chosen)
    _copy(asyncapi.render(asyncapi.generate(bundled=True)))
    return 0


def _typescript(chosen: argparse.Namespace) -> int:
    return _write_or_check({typescript.FILE: typescript.generate()}, chosen)


def _page(chosen: argparse.Namespace) -> int:
    if chosen.html:
        _copy(page.render_html())
        return 0
    pages = {
        page.FILE: page.render(),
        page.HTML_FILE: page.render_html(),
        page.CHANGES_FILE: page.render_changes(),
    }
    return _write_or_check(pages, chosen)


def _write_or_check(committed: dict[Path, str], chosen: argparse.Namespace) -> int:
    """Write or compare the committed files; otherwise print the first of them."""
    if chosen.write or chosen.check:
        for file in committed:
            if not file.parent.is_dir():
                raise EventError(f"{file.parent} is missing: this works in a source tree only")
    if chosen.write:
        for file, text in committed.items():
            file.write_text(text)
    elif chosen.check:
        different = [
            file for file, text in committed.items() if not file.exists() or file.read_text() != text
        ]
        return _differences(
            [f"{file} differs from the catalogue: write it again with --write" for file in different]
        )
    else:
        _copy(next(iter(committed.values())))
    return 0


def _changed(names: list[str]) -> int:
    for name in names or ["nothing changed"]:
        _print(name)
    return 0


def _differences(found: list[str]) -> int:
    for line in found:
        _print(line)
    return 1 if found else 0


def _expectations(chosen: argparse.Namespace) -> int:
    return max([_unmet_of(name) for name in chosen.files])


def _unmet_of(name: str) -> int:
    try:
        read = expected(orjson.loads(Path(name).read_bytes()))
    except orjson.JSONDecodeError as error:
        raise EventError(f"{name}: not JSON: {error}") from None
    except EventError as error:
        raise EventError(f"{name}: {error}") from None
    found = unmet(read)
    for line in found or [f"{read.subscriber}: the contract has all of it"]:
        _print(f"{name}: {line}")
    return 1 if found else 0


def _conform(chosen: argparse.Namespace) -> int:
    url = _broker_url()
    if url is None:
        return 2
    try:
        event = asyncio.run(conform(url, chosen.program, type=chosen.type, timeout=chosen.timeout))
    except AssertionError as error:
        _print(f"does not conform: {error}")
        return 1
    _print(f"conforms: {event.type} {event.id}, and it notices when no queue gets its event")
    return 0


def _broker_url() -> str | None:
    """The broker for tests; None, and an error printed, when it is not named."""
    url = os.environ.get(_URL_VARIABLE)
    if not url:
        _print(f"error: set {_URL_VARIABLE}=amqp://user:password@host:port/vhost", error=True)
    return url or None


def _mock(chosen: argparse.Namespace) -> int:
    url = _broker_url()
    if url is None:
        return 2
    story = Story(chosen.outcome, models=tuple(entry.model for entry in all_in_use()))
    if chosen.instance:
        story = replace(story, instance_id=chosen.instance)
    return asyncio.run(_play(url, story, chosen))


async def _play(url: str, story: Story, chosen: argparse.Namespace) -> int:
    playing = play(url, story, disorder=chosen.disorder, pause=chosen.pause, force=chosen.force)
    async for event, taken in playing:
        _print(f"{event.type:<26} {event.id}{'' if taken else '  (no queue is bound for it)'}")
    return 0


def _print(line: str, *, error: bool = False) -> None:
    """A line for people, made printable: file names and events come from others."""
    print(visible(line), file=sys.stderr if error else sys.stdout, flush=True)


def _print_json(value: object) -> None:
    print(visible_json(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()))  # noqa: T201 - the same


def _copy(text: str) -> None:
    """A generated file, byte by byte."""
    print(text, end="")  # noqa: T201 - the same


if __name__ == "__main__":
    sys.exit(main())
