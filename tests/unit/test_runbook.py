"""docs/runbook.md has a text for every alert, error and code that an operator can meet, and its commands are valid."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

import rehome_consumer
from rehome_consumer import errors
from rehome_consumer.engine import headers
from rehome_consumer.errors import RehomeError
from rehome_consumer.operators import rollback_request
from rehome_consumer.steps import accept
from rehome_events import errors as event_errors

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "runbook.md").read_text()
RULES = [
    rule
    for group in yaml.safe_load((DOCS / "monitoring/rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule["alert"] for rule in RULES]
PARTS = ["Means", "Look", "Do", "Leave it"]
SHORTEST = 12
"""Characters that say something."""


def below(heading: str, level: str = "###") -> str:
    """The text below a heading, up to the next one of its level or a higher one."""
    found = re.search(
        rf"^{level} {heading}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/runbook.md has no section {level} {heading}"
    return found[1]


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def classes(module: object) -> list[type[BaseException]]:
    """The errors that a module defines."""
    own = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, BaseException)]
    return [one for one in own if one.__module__ == vars(module)["__name__"]]


def elsewhere() -> list[type[RehomeError]]:
    """The classes of our tree that are not in errors.py."""
    for module in pkgutil.walk_packages(rehome_consumer.__path__, "rehome_consumer."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, todo = [], [RehomeError]
    while todo:
        below_it = todo.pop().__subclasses__()
        todo += below_it
        found += [one for one in below_it if one.__module__.startswith("rehome_consumer.")]
    return [one for one in found if one.__module__ != errors.__name__]


def requires(section: str) -> None:
    parts = re.findall(r"^- \*\*([^*]+)\*\*: (.*?)(?=^- |\Z)", section, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in parts] == PARTS
    assert [name for name, text in parts if len(text.strip()) < SHORTEST and text.strip() != "always."] == []


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table in a section: their first word, the texts behind it."""
    lines = re.findall(r"^\| `(\w+)` \|(.*)\|$", below(heading, "##"), re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in lines}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_section_and_points_to_it(rule: dict[str, dict[str, str]]) -> None:
    requires(below(str(rule["alert"])))
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (page, anchor) == ("docs/runbook.md", str(rule["alert"]).lower())
    assert anchor in anchors(PAGE)


def test_every_section_of_alerts_has_an_alert() -> None:
    assert re.findall(r"^### (.*)$", below("Alerts", "##"), re.MULTILINE) == ALERTS


@pytest.mark.parametrize("error", classes(errors), ids=lambda one: one.__name__)
def test_an_error_has_a_section(error: type[BaseException]) -> None:
    requires(below(error.__name__))


def test_every_section_of_errors_is_of_one_that_there_is() -> None:
    named = [one.__name__ for one in classes(errors)]
    assert re.findall(r"^### (.*)$", below("Errors", "##"), re.MULTILINE) == [
        *named,
        rollback_request.OPERATOR,
    ]


def test_an_error_from_elsewhere_is_named_with_its_parent() -> None:
    found = elsewhere()
    assert "AnotherOpen" in {one.__name__ for one in found}
    missing = [one for one in found if f"`{one.__name__}`" not in below(one.__mro__[1].__name__)]
    assert missing == []


def test_a_rollback_that_was_asked_for_has_a_section() -> None:
    requires(below(rollback_request.OPERATOR))


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    constants = {value for name, value in vars(headers).items() if name.isupper() and isinstance(value, str)}
    names_of_headers = ("rehome-", "x-")
    reasons = {one for one in constants if not one.startswith(names_of_headers)}
    assert headers.CRASHED in reasons
    explained = rows("Reasons of dead letters")
    assert set(explained) == reasons
    assert [name for name, cells in explained.items() if len(cells) != 4 or not all(cells)] == []


def test_every_reason_of_a_rejection_is_explained() -> None:
    explained = rows("Reasons of a rejection")
    assert set(explained) == {*get_args(accept.Rejection), rollback_request.CANCELLED}
    assert [name for name, cells in explained.items() if len(cells) != 4 or not all(cells)] == []


def test_codes_come_from_nowhere_else() -> None:
    """Those of `migration.failed` are classes and OPERATOR, those of `migration.rejected` a Literal and CANCELLED."""
    made = {
        str(path.relative_to(ROOT / "consumer/rehome_consumer"))
        for path in (ROOT / "consumer").rglob("*.py")
        if re.search(r"\bMigration(Rejected|Failed)\(", path.read_text())
    }
    assert made == {"steps/accept.py", "operators/rollback_request.py", "engine/tries.py"}


def test_every_error_of_other_teams_programs_is_explained() -> None:
    explained = rows("Errors of other teams' programs")
    assert set(explained) == {one.__name__ for one in classes(event_errors)}
    assert [name for name, cells in explained.items() if len(cells) != 4 or not all(cells)] == []


def test_what_it_links_is_there() -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGE):
        path, _, anchor = link.partition("#")
        linked = (DOCS / path) if path else DOCS / "runbook.md"
        assert linked.exists(), link
        assert not anchor or anchor in anchors(linked.read_text()), link
