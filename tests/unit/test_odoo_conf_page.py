"""docs/odoo-conf.md agrees with the table of settings, and with what is done with them."""

from __future__ import annotations

import re
from pathlib import Path

from rehome_consumer.steps.support.conf_settings import ACTIONS, SETTINGS, Setting
from rehome_consumer.steps.support.relocation import MOST_WARNINGS

PAGE = (Path(__file__).parents[2] / "docs/odoo-conf.md").read_text()


def row(setting: Setting) -> str:
    """A row of the page's tables."""
    names = ", ".join(f"`{name}`" for name in (setting.key, *setting.aliases))
    return f"| {names} | {setting.since} | {setting.meaning} | {ACTIONS[setting.action]} |"


def test_every_setting_has_its_row() -> None:
    """Also the other way round, and in the order of the table."""
    rows = [line for line in PAGE.splitlines() if re.match(r"\| `", line)]
    assert rows == [row(setting) for setting in SETTINGS], "\n".join(row(setting) for setting in SETTINGS)


def test_the_number_of_warnings_is_named() -> None:
    assert f"at most {MOST_WARNINGS}" in PAGE
