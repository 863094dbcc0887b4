"""Who an act on the command line was by, for the journal."""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING

from rehome_consumer.commands import who as module
from rehome_consumer.commands.who import who

if TYPE_CHECKING:
    import pytest


def test_it_is_the_login_and_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "node", lambda: "ops-1")
    monkeypatch.setattr(getpass, "getuser", lambda: "bert")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("SUDO_USER", "anna")
    assert who() == "bert@ops-1"


def test_behind_sudo_it_is_who_called_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "node", lambda: "ops-1")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "anna: \x1b[2J; why\u202e")
    assert who() == "anna [2J why@ops-1"


def test_an_id_without_a_name_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(module, "node", lambda: "")
    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    assert who() == "uid 4711"
