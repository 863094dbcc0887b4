"""`rehome console` as a process, and Debian's chromium."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import async_playwright

from tests.contract.journals import postgres_journal, state_database
from tests.support.console import console_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

    from sandbox.postgres.server import Cluster

PICTURES = Path(__file__).parents[2] / "build/console"


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium")
    assert program, "chromium is missing: make console-check installs it"
    PICTURES.mkdir(parents=True, exist_ok=True)
    options: list[str] = ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses to run as root otherwise
    async with async_playwright() as playwright:
        browser: Any = await playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
async def empty(pg: Cluster, scratch: Path) -> AsyncIterator[str]:
    """Address of a console whose journal has no migration."""
    log = scratch / "empty-console.log"
    async with state_database(pg) as dsn, postgres_journal(dsn), console_process(dsn, log) as (_, address):
        yield address
