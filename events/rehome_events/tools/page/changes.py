"""The blocks of the page about what changed."""

from collections.abc import Iterator
from typing import Final

from rehome_events.catalog import KNOWN
from rehome_events.tools.changes import NEW, Changes, changes, recorded, unreleased
from rehome_events.tools.page.blocks import Block, Bullets, Heading, Text
from rehome_events.tools.released import released
from rehome_events.tools.schema import load

_INTRODUCTION: Final[tuple[Block, ...]] = (
    Heading(1, "What changed in the events"),
    Text(
        "For subscribers and publishers, from version to version of a type and from release to release of "
        "`rehome-events`. [events.md](events.md) describes the events as they are."
    ),
    Text(
        "Within a version only optional fields are added; a test compares every change with all that was released. "
        "A reader that ignores what it does not know needs to do nothing for what stands under a release; a new "
        "version of a type is to be read while [both are published](events.md#versions)."
    ),
)


def blocks() -> list[Block]:
    """Everything on the page, from top to bottom."""
    return [*_INTRODUCTION, *_versions(), *_releases()]


def _versions() -> Iterator[Block]:
    yield Heading(2, "From version to version")
    newer = [entry for entry in KNOWN.values() if entry.version > 1]
    if not newer:
        yield Text("Every type is in its first version.")
    for entry in newer:
        before = entry.version - 1
        found = changes(load(entry.type, before), load(entry.type, entry.version))
        yield Text(f"`{entry.type}`, v{before} to v{entry.version}:")
        yield Bullets(tuple(found) or ("the meaning of its fields",))


def _releases() -> Iterator[Block]:
    yield Heading(2, "From release to release")
    if waiting := unreleased(released()):
        yield Text("**Not released yet**")
        yield _bullets(waiting)
    for release, found in reversed(recorded().items()):
        yield Text(f"**{release}**")
        yield _bullets(found)


def _bullets(found: Changes) -> Bullets:
    new = [f"`{name}`" for name, lines in found.items() if lines == [NEW]]
    items = [f"new: {', '.join(new)}"] if new else []
    items += [f"`{name}`: {'; '.join(lines)}" for name, lines in found.items() if lines != [NEW]]
    return Bullets(tuple(items))
