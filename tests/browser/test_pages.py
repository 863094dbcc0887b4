"""What a person sees: pictures in build/console, and what a browser itself complains about."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import PICTURES
from tests.contract.journals import postgres_journal, state_database
from tests.support.console import ACT, READ, console_process, given_up, opened, seeds
from tests.support.events import migration_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from uuid import UUID

    from playwright.async_api import Browser, Page

    from sandbox.postgres.server import Cluster
    from sandbox.rabbitmq.node import BrokerNode

DESKTOP = {"width": 1200, "height": 800}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
async def place(pg: Cluster, scratch: Path) -> AsyncIterator[tuple[str, str, dict[str, UUID]]]:
    """The console's address, the journal's, and one migration of each kind."""
    async with state_database(pg) as dsn:
        async with postgres_journal(dsn), seeds(dsn) as made:
            found = await made.everything()
        async with console_process(dsn, scratch / "console.log") as (_, address):
            yield address, dsn, found


@asynccontextmanager
async def signed_in(
    browser: Browser,
    address: str,
    *,
    token: str = ACT,
    size: dict[str, int] = DESKTOP,
    dark: bool = False,
    faults: tuple[str, ...] = (),
) -> AsyncIterator[Page]:
    """A page, signed in by keyboard alone; what the browser complains about, but `faults`, fails the test."""
    complaints: list[str] = []
    options: Any = {"viewport": size, "color_scheme": "dark" if dark else "light"}
    context = await browser.new_context(**options)
    page = await context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    page.on("request", lambda it: None if it.url.startswith(address) else complaints.append(f"asks {it.url}"))
    await page.goto(address)
    assert page.url == f"{address}/sign-in"
    # It is focused with the first picture, which may come after the page is loaded.
    await page.wait_for_selector("input[name=token]:focus")
    await page.keyboard.type(token)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{address}/")
    yield page
    await context.close()
    assert [one for one in complaints if not any(fault in one for fault in faults)] == []


async def picture(page: Page, name: str) -> None:
    await page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


async def is_wider_than_the_screen(page: Page) -> bool:
    found: bool = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
    return found


PAGES = {
    "now": "/",
    "history": "/migrations",
    "dead-letters": "/dead-letters",
    "queues": "/queues",
    "pause": "/pause",
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_every_page_is_readable(
    browser: Browser, place: tuple[str, str, dict[str, UUID]], size: dict[str, int], dark: bool
) -> None:
    address, _, found = place
    kind = f"{'phone' if size is PHONE else 'desktop'}-{'dark' if dark else 'light'}"
    async with signed_in(browser, address, size=size, dark=dark) as page:
        paths = PAGES | {
            f"migration-{name}": f"/migrations/{found[name]}"
            for name in ("running", "failed", "rolled_back", "completed")
        }
        paths["prioritize"] = f"/migrations/{found['waiting']}/prioritize"
        paths["move-now"] = f"/migrations/{found['waiting']}/move-now"
        for name, path in paths.items():
            await page.goto(address + path)
            assert not await is_wider_than_the_screen(page), path
            await picture(page, f"{kind}-{name}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_where_there_is_nothing_the_page_says_so(browser: Browser, empty: str, dark: bool) -> None:
    async with signed_in(browser, empty, dark=dark, token=READ) as page:
        assert "No migration is under way" in await page.inner_text("main")
        await picture(page, f"empty-{'dark' if dark else 'light'}")


async def test_all_moves_are_paused_and_resumed_and_another_browser_sees_it(
    browser: Browser, place: tuple[str, str, dict[str, UUID]]
) -> None:
    address, _, _ = place
    async with signed_in(browser, address) as page, signed_in(browser, address, token=READ) as other:
        await page.get_by_role("link", name="Pause all moves").click()
        await page.get_by_label("Why").fill("the <b>storage</b> is slow")
        await page.get_by_role("button", name="Pause").click()
        await page.wait_for_selector("text=No new move begins.")
        await other.wait_for_selector("text=Paused", timeout=20_000)
        assert "the <b>storage</b> is slow" in await other.inner_text("main")
        await picture(other, "paused")
        await page.goto(f"{address}/pause")
        assert "Paused by anna" in await page.inner_text("main")
        await picture(page, "resume")
        await page.get_by_label("Why").fill("it is quick again")
        await page.get_by_role("button", name="Resume").click()
        await page.wait_for_selector("text=What waited goes on within a minute.")
        await other.wait_for_selector("text=Paused by anna", state="detached", timeout=20_000)


async def test_a_page_changes_by_itself_and_keeps_what_is_open(
    browser: Browser, place: tuple[str, str, dict[str, UUID]]
) -> None:
    address, dsn, found = place
    async with signed_in(browser, address) as page, seeds(dsn) as made:
        await page.goto(f"{address}/migrations/{found['running']}")
        await page.click("details[data-keep=limits] summary")
        await made.moves_on(found["running"], 900)
        await page.locator("progress[value='90.0']").wait_for(timeout=10_000)
        assert await page.locator("details[data-keep=limits]").get_attribute("open") is not None


async def test_what_changes_while_the_reader_is_busy_is_shown_afterwards(
    browser: Browser, place: tuple[str, str, dict[str, UUID]]
) -> None:
    address, dsn, found = place
    async with signed_in(browser, address) as page, seeds(dsn) as made:
        await page.goto(f"{address}/migrations/{found['running']}")
        await page.wait_for_selector("#live:has-text('as of')")
        await page.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
        await made.moves_on(found["running"], 950)
        await page.wait_for_timeout(3000)
        assert await page.locator("progress[value='95.0']").count() == 0, (
            "what the reader marks is not replaced"
        )
        await page.evaluate("getSelection().removeAllRanges()")
        await page.locator("progress[value='95.0']").wait_for(timeout=10_000)


async def test_without_a_state_database_the_page_says_what_to_do_and_comes_back(
    browser: Browser, pg: Cluster, scratch: Path
) -> None:
    async with (
        state_database(pg) as dsn,
        postgres_journal(dsn),
        console_process(dsn, scratch / "lost.log") as (_, address),
        signed_in(browser, address, faults=("503",)) as page,
        seeds(dsn) as made,
    ):
        await page.goto(address)
        await made.hide()
        await page.locator("#trouble").wait_for(timeout=10_000)
        await picture(page, "trouble")
        await page.wait_for_timeout(1500)  # an answer is shared for a second
        await page.reload()
        assert "the journal is not there" in await page.inner_text("main")
        await picture(page, "error")
        await made.show()
        await page.wait_for_timeout(1500)
        await page.click("text=Try again")
        assert "No migration is under way" in await page.inner_text("main")


async def test_a_dead_letter_is_replayed_by_keyboard_alone(
    browser: Browser, pg: Cluster, broker: BrokerNode, scratch: Path
) -> None:
    async with (
        state_database(pg) as dsn,
        postgres_journal(dsn) as journal,
        console_process(dsn, scratch / "acts.log", REHOME_AMQP_URL=broker.url()) as (_, address),
        signed_in(browser, address, size=PHONE) as page,
    ):
        event = await opened(journal)
        id_ = await given_up(broker, event)
        await page.goto(f"{address}/dead-letters/{id_}")
        await picture(page, "phone-light-dead-letter")
        await page.focus("form[action$=replay] input[name=why]")
        await page.keyboard.press("Enter")
        assert page.url.endswith(id_)  # the browser asks for a reason
        await page.keyboard.type("there is room now")
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="Replayed").wait_for(timeout=20_000)
        await picture(page, "phone-light-replayed")
        await page.goto(f"{address}/migrations/{migration_of(event)}")
        assert "by anna: there is room now" in await page.inner_text("main")
        await page.click("text=Roll back")
        await picture(page, "phone-light-roll-back")


async def test_a_wrong_token_is_refused_in_words(browser: Browser, empty: str) -> None:
    async with signed_in(browser, empty, faults=("403",)) as page:
        await page.click("text=Sign out")
        await page.fill("input[type=password]", "wrong" * 8)
        await page.keyboard.press("Enter")
        await page.locator("#wrong").wait_for()
        await picture(page, "sign-in")
