"""The blocks of a page. Texts hold two kinds of markup: `code` in backticks, and links as in Markdown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """Title of the page (level 1) or of a section."""

    level: int
    text: str

    @property
    def anchor(self) -> str:
        """Its name in links, as git hosts make it."""
        return self.text.lower().replace(".", "").replace(" ", "-")


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list, numbered or not."""

    items: tuple[str, ...]
    numbered: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Example:
    """An event as JSON, collapsed."""

    json: str


@dataclass(frozen=True)
class Diagram:
    """How events follow each other.

    Attributes:
        chain: The events of a success in order, each with the handler that it wakes.
        branches: Other events that the first handler may emit.
        failure: The event of a failed step (any but the first), its handler, and what that emits.
    """

    chain: tuple[tuple[str, str], ...]
    branches: tuple[str, ...]
    failure: tuple[str, str, str]


Block = Heading | Text | Bullets | Table | Example | Diagram
