"""The console's pages and its API on a real journal: what they show, to whom, and what other sites cannot do."""

from __future__ import annotations

import re
import secrets
import time
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest
from fastapi.routing import APIRoute
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from rehome_consumer.console import access, api, pages
from rehome_consumer.console.access import Access, Person
from rehome_consumer.console.app import application
from rehome_consumer.console.live import CHANGED, TROUBLE, WELL, Live
from rehome_consumer.errors import SettingsError, Unreachable
from rehome_consumer.operators.reader import Reader
from rehome_consumer.settings import Settings
from tests.contract.journals import postgres_journal, state_database
from tests.support.console import ACT, HOSTILE, READ, TOKENS, bearer, console_on, seeds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    import httpx

    from sandbox.postgres.server import Cluster

OPEN = {"/healthz", "/readyz", "/sign-in", "/sign-out"}
"""Paths that anybody may ask for."""


@pytest.fixture(scope="module")
async def journal(pg: Cluster) -> AsyncIterator[tuple[str, dict[str, UUID]]]:
    """A journal with one migration of each kind; these tests only read it."""
    async with state_database(pg) as dsn:
        async with postgres_journal(dsn), seeds(dsn) as made:
            found = await made.everything()
        yield dsn, found


@pytest.fixture
def found(journal: tuple[str, dict[str, UUID]]) -> dict[str, UUID]:
    return journal[1]


@pytest.fixture
async def client(journal: tuple[str, dict[str, UUID]]) -> AsyncIterator[httpx.AsyncClient]:
    async with console_on(journal[0], console_tokens=TOKENS) as client:
        yield client


class Tags(HTMLParser):
    """What a page's tags are."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value or "" for name, value in attrs if name in ("src", "action")]


async def json(client: httpx.AsyncClient, path: str) -> Any:
    answer = await client.get(f"/api/v1{path}", headers=bearer(READ))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def sign_in(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/sign-in", data={"token": token})


async def test_what_moves_and_what_needs_an_operator_comes_first(
    client: httpx.AsyncClient, found: dict[str, UUID]
) -> None:
    overview = await json(client, "/overview")
    assert overview["running"][0]["id"] == str(found["failed"])
    running = next(one for one in overview["running"] if one["id"] == str(found["running"]))
    assert (running["step"], running["step_state"], running["progress"], running["down"]) == (
        "restore",
        "running",
        0.45,
        True,
    )
    assert 74 < running["downtime_seconds"] < 200
    assert 30 < running["seconds_left"] < 300
    (waiting,) = overview["waiting"]
    assert (waiting["behind"], waiting["state"]) == (str(found["running"]), "waiting")
    assert (overview["dead_letters"], overview["unsent_events"]) == (1, 1)
    page = (await client.get("/", headers=bearer(READ))).text
    assert '<progress max="100" value="45.0"' in page
    assert "2 of 7 tries failed" in page


async def test_a_list_is_filtered_and_read_page_by_page(
    client: httpx.AsyncClient, found: dict[str, UUID]
) -> None:
    seen: list[str] = []
    after = ""
    while True:
        page = await json(client, f"/migrations?limit=2{after}")
        seen += [one["id"] for one in page["migrations"]]
        if page["next"] is None:
            break
        after = f"&after={page['next'].replace('+', '%2B')}"
    assert sorted(seen) == sorted(map(str, found.values()))
    only = await json(client, "/migrations?state=completed&state=rejected")
    assert [one["state"] for one in only["migrations"]] == ["rejected", "completed"]
    assert {one["state"] for one in (await json(client, "/migrations?over=true"))["migrations"]} == {
        "completed",
        "rolled_back",
        "rejected",
    }
    one = (await json(client, f"/migrations?of={found['completed']}"))["migrations"][0]
    assert (one["state"], one["downtime_seconds"]) == ("completed", pytest.approx(9, abs=0.1))
    assert (await json(client, f"/migrations?of={one['instance_id']}"))["migrations"] == [one]


async def test_a_migration_has_its_timeline_and_no_secret(
    client: httpx.AsyncClient, found: dict[str, UUID]
) -> None:
    timeline = await json(client, f"/migrations/{found['rolled_back']}")
    assert [step["step"] for step in timeline["steps"]][-1] == "restore"
    assert timeline["steps"][-1]["tries"] == 5
    assert timeline["facts"]["tenant_password"] is None
    assert [event["type"] for event in timeline["events"]] == ["migration.requested"]
    assert (await json(client, f"/migrations/{found['rolled_back']}/events"))["events"] == timeline["events"]
    page = (await client.get(f"/migrations/{found['rolled_back']}", headers=bearer(READ))).text
    assert "secret, encrypted" in page
    assert "5 of 5 tries failed" in page
    assert "Roll back" not in page


async def test_what_was_logged_in_its_steps_is_on_a_migrations_page(
    client: httpx.AsyncClient, found: dict[str, UUID]
) -> None:
    log = await json(client, f"/migrations/{found['failed']}/log")
    assert [line["event"] for line in log["lines"]] == ["step.started", "undo.left", "step.failed"]
    assert log["lines"][1]["fields"] == {"why": HOSTILE}
    assert log["before"] is None
    page = (await client.get(f"/migrations/{found['failed']}", headers=bearer(READ))).text
    assert re.search(r"<b[^>]*>undo.left</b>", page)
    older = await json(client, f"/migrations/{found['failed']}/log?limit=2")
    assert [line["event"] for line in older["lines"]] == ["undo.left", "step.failed"]
    first = await json(client, f"/migrations/{found['failed']}/log?before={older['before']}")
    assert [line["event"] for line in first["lines"]] == ["step.started"]
    none = (await client.get(f"/migrations/{found['completed']}", headers=bearer(READ))).text
    assert "No line is kept" in none


async def test_a_journal_of_a_release_that_keeps_no_log_has_pages(pg: Cluster) -> None:
    async with (
        state_database(pg) as dsn,
        postgres_journal(dsn),
        seeds(dsn) as made,
        console_on(dsn) as client,
    ):
        found = await made.migration("failed", step="stop", step_state="failed", error="x")
        async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
            await pool.execute("DROP TABLE rehome.log_lines")
        assert (await client.get(f"/migrations/{found}")).status_code == 200


async def test_a_page_holds_what_a_copy_took_against_what_was_expected(
    client: httpx.AsyncClient, found: dict[str, UUID]
) -> None:
    page = (await client.get(f"/migrations/{found['completed']}", headers=bearer(READ))).text
    assert re.search(r"Copy while the customer waits: expected 32 s, took \d", page)
    page = (await client.get(f"/migrations/{found['failed']}", headers=bearer(READ))).text
    assert "Contents compared after the stop: everything, since &lt;" in page


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (f"/migrations/{UUID(int=7)}", 404, "there is no migration"),
        ("/migrations/x", 422, "migration_id: "),
        ("/migrations?limit=1000", 422, "limit: "),
        ("/migrations?after=yesterday", 422, "leave it out for the first page"),
        ("/nothing", 404, "openapi.json lists what is"),
    ],
)
async def test_an_error_names_the_thing(client: httpx.AsyncClient, path: str, status: int, said: str) -> None:
    answer = await client.get(f"/api/v1{path}", headers=bearer(READ))
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status
    assert said in answer.json()["detail"]


async def test_what_tenants_made_is_text_on_every_page(
    client: httpx.AsyncClient, found: dict[str, UUID]
) -> None:
    for path in ("/", "/migrations", f"/migrations/{found['failed']}", "/dead-letters"):
        text = (await client.get(path, headers=bearer(READ))).text
        assert "&lt;script&gt;alert(1)" in text, path
        assert "{{ 7*7 }}" in text, path
        assert not re.search(r"<script(?! src=\"/static/)|<img|[\u202e\u2066\x1b]", text), path
        assert "x" * 300 not in text or path.endswith(str(found["failed"])), path
    answer = await client.get(
        "/migrations", params={"of": HOSTILE[:90], "state": HOSTILE[:40]}, headers=bearer(READ)
    )
    assert "<script>alert" not in answer.text
    assert "this is no complete id" in answer.text


async def test_what_was_rewritten_of_odoo_conf_is_shown_before_and_after(
    client: httpx.AsyncClient, found: dict[str, UUID]
) -> None:
    text = (await client.get(f"/migrations/{found['completed']}", headers=bearer(READ))).text
    section = re.search(r'<h2 id="conf">.*?</section>', text, re.DOTALL)
    assert section
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>\s*<td.*?>(.*?)</td>\s*<td.*?>(.*?)</td>", section[0])
    plain = [tuple(re.sub("<[^>]+>", "", cell) for cell in row) for row in rows]
    host = "postgres-dedicated-7d9f2a54"
    assert plain == [
        ("db_host", "postgres-pool-1", host),
        ("db_password", "***", "***"),
        ("queue_job.jobrunner_db_host", "not there", host),
    ]
    # Nothing was rewritten by one that has not come so far
    text = (await client.get(f"/migrations/{found['waiting']}", headers=bearer(READ))).text
    assert 'id="conf"' not in text
    assert f"grep {found['waiting']}" in text


async def test_every_answer_forbids_what_no_page_needs(client: httpx.AsyncClient) -> None:
    for path in ("/", "/static/console.js", "/api/v1/nothing", "/healthz", "/sign-in"):
        headers = (await client.get(path)).headers
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
    tags = Tags()
    tags.feed((await client.get("/", headers=bearer(READ))).text)
    assert {"script", "link", "progress"} <= tags.names
    assert "style" not in tags.names | tags.attributes
    assert [name for name in tags.attributes if name.startswith("on")] == []
    assert all(value.startswith("/") for value in tags.addresses)


async def test_nothing_is_shown_to_nobody(client: httpx.AsyncClient, found: dict[str, UUID]) -> None:
    every = [*application(None).routes, *api.router.routes, *pages.router.routes]
    routes = [route for route in every if isinstance(route, APIRoute)]
    assert len(routes) == 5 + 17 + 21
    for route in routes:
        path = route.path.replace("{migration_id}", str(found["failed"])).replace("{letter_id}", "a" * 8)
        for method in route.methods or ():
            answer = await client.request(method, path)
            if path in OPEN:
                assert answer.status_code in (200, 303, 403, 503), path
            elif path.startswith("/api/") or path == "/live" or method != "GET":
                assert answer.status_code == 401, path
            else:
                assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in"), path
    assert (await client.get("/", headers=bearer("x" * 30))).status_code == 303


async def test_a_reader_may_not_act(client: httpx.AsyncClient, found: dict[str, UUID]) -> None:
    for path in (
        f"/migrations/{found['failed']}/roll-back",
        "/dead-letters/aaaaaaaa/replay",
        "/dead-letters/aaaaaaaa/discard",
        f"/migrations/{found['failed']}/move-now",
        f"/migrations/{found['failed']}/prioritize",
        "/pause",
        "/resume",
    ):
        answer = await client.post(f"/api/v1{path}", json={"why": "because"}, headers=bearer(READ))
        assert (answer.status_code, "role operator" in answer.json()["detail"]) == (403, True)
        assert (await client.post(path, data={"why": "because"}, headers=bearer(READ))).status_code == 403


async def test_a_browser_signs_in_and_out(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await sign_in(client, "wrong")).status_code == 403
    answer = await sign_in(client, ACT)
    cookie = answer.headers["set-cookie"].lower()
    assert answer.status_code == 303
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert ACT not in cookie
    assert "anna" in (await client.get("/")).text
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert (await client.get("/")).status_code == 303
    monkeypatch.undo()
    await client.post("/sign-out")
    assert (await client.get("/")).status_code == 303


async def test_a_changed_cookie_is_worth_nothing(client: httpx.AsyncClient) -> None:
    await sign_in(client, READ)
    good = client.cookies[access.COOKIE]
    for bad in (good.replace(good[:4], "AAAA"), good[:-3], good + "x", "é", ".", "a.b", ""):
        answer = await client.get("/", headers={b"Cookie": f"{access.COOKIE}={bad}".encode()})
        assert answer.status_code in (200, 303), bad
        assert "grafana" not in answer.text or bad == good, bad


async def test_whoever_has_the_only_token_cannot_make_itself_an_operator(
    journal: tuple[str, dict[str, UUID]],
) -> None:
    settings = Settings.model_construct(
        console_tokens=SecretStr(f"read:bert:{READ}"), console_host="127.0.0.1"
    )
    known = Access(settings)  # what the holder of that token can compute
    forged = known.session(Person("bert", "operator", "token"))
    honest = known.session(Person("bert", "read", "token"))
    async with console_on(journal[0], console_tokens=f"read:bert:{READ}") as client:
        assert (await client.get("/", headers={"Cookie": f"{access.COOKIE}={honest}"})).status_code == 200
        assert (await client.get("/", headers={"Cookie": f"{access.COOKIE}={forged}"})).status_code == 303


async def test_a_defect_shows_nothing_of_itself(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise ValueError("inner words")

    monkeypatch.setattr(Reader, "migrations", fails)
    for path in ("/", "/api/v1/overview"):
        answer = await client.get(path, headers=bearer(READ))
        assert (answer.status_code, "a defect in the console" in answer.text) == (500, True)
        assert "inner words" not in answer.text
        assert "default-src" in answer.headers["content-security-policy"]
    assert "console.defect" in caplog.text


async def test_another_site_can_do_nothing_with_a_browser(
    client: httpx.AsyncClient, found: dict[str, UUID]
) -> None:
    await sign_in(client, ACT)
    path = f"/migrations/{found['completed']}/roll-back"
    form = re.search(
        r'name="csrf" value="([^"]+)"', (await client.get(f"/migrations/{found['failed']}/roll-back")).text
    )
    assert form
    right = {"csrf": form[1], "why": "the customer asked"}
    assert (
        await client.post(path, data=right)
    ).status_code == 409  # it is over: what every check before lets through
    for data, headers in (
        ({**right, "csrf": ""}, {}),
        ({**right, "csrf": "x" * 44}, {}),
        (right, {"Sec-Fetch-Site": "cross-site"}),
        (right, {"Sec-Fetch-Site": "same-site"}),
        (right, {"Origin": "https://evil.example"}),
    ):
        answer = await client.post(path, data=data, headers=headers)
        assert (answer.status_code, "another site" in answer.text) == (403, True)
    answer = await client.post(f"/api/v1{path}", json={"why": "because"})
    assert answer.status_code == 403
    assert (
        await client.post("/sign-in", data={"token": ACT}, headers={"Sec-Fetch-Site": "cross-site"})
    ).status_code == 403
    short = await client.post(path, data={**right, "why": "  "})
    assert (short.status_code, "say why" in short.text) == (409, True)


async def test_an_act_that_lacks_a_setting_names_it(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/dead-letters/aaaaaaaa", headers=bearer(ACT))
    assert (answer.status_code, "REHOME_AMQP_URL is missing" in answer.json()["detail"]) == (503, True)


async def test_a_large_request_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/sign-in", data={"token": "x" * 100_000})).status_code == 413


async def test_without_tokens_loopback_reads_and_no_other_name_is_answered(
    journal: tuple[str, dict[str, UUID]],
) -> None:
    async with console_on(journal[0]) as client:
        assert "read only" in (await client.get("/")).text
        assert (await client.get(f"/migrations/{journal[1]['failed']}/roll-back")).status_code == 403
        answer = await client.get("/", headers={"Host": "rebound.evil.example"})
        assert (answer.status_code, "REHOME_CONSOLE_TOKENS_FILE" in answer.text) == (421, True)


async def test_a_proxys_word_counts_from_the_proxy_alone(journal: tuple[str, dict[str, UUID]]) -> None:
    proxy = {
        "console_proxies": "127.0.0.0/8",
        "console_proxy_header": "X-Forwarded-User",
        "console_operators": "anna",
    }
    async with console_on(journal[0], **proxy) as client:
        assert (await client.get("/")).status_code == 303
        assert "read only" in (await client.get("/", headers={"X-Forwarded-User": "bert"})).text
        assert "operator</span>" in (await client.get("/", headers={"X-Forwarded-User": "anna"})).text
    async with console_on(journal[0], **proxy | {"console_proxies": "10.0.0.0/8"}) as client:
        assert (await client.get("/", headers={"X-Forwarded-User": "anna"})).status_code == 303


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"console_host": "0.0.0.0"}, "needs REHOME_CONSOLE_TOKENS_FILE"),  # noqa: S104 - what is refused
        ({"console_host": "127.0.0.1,10.0.9.0/24"}, "needs REHOME_CONSOLE_TOKENS_FILE"),
        ({"console_tokens": "operator:anna:short"}, "entry 1 (of anna): a token has 20"),
        ({"console_tokens": f"admin:anna:{ACT}"}, "entry 1: write role:name:token"),
        (
            {"console_tokens": f"read:a:{READ},read:a:{ACT}"},
            "entry 2 (of a): that name or token is listed twice",
        ),
        ({"console_tokens_file": "/nonexistent"}, "REHOME_CONSOLE_TOKENS_FILE: "),
        ({"console_proxies": "10.0.0.1"}, "belong together"),
        ({"console_proxies": "nowhere"}, "REHOME_CONSOLE_PROXIES"),
    ],
)
async def test_a_wrong_setting_is_named_and_no_token_shown(
    journal: tuple[str, dict[str, UUID]], settings: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        async with console_on(journal[0], **settings):
            pass
    assert said in str(caught.value)
    assert ACT not in str(caught.value)


async def test_tokens_are_read_from_a_file(journal: tuple[str, dict[str, UUID]], tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# who may\n\noperator:anna:{ACT}\nread:grafana:{READ}\n")
    async with console_on(journal[0], console_tokens_file=str(file)) as client:
        assert (await client.get("/", headers=bearer(ACT))).status_code == 200


async def test_prometheus_gets_numbers_of_all_consumers(client: httpx.AsyncClient) -> None:
    text = (await client.get("/metrics", headers=bearer(READ))).text
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["rehome_migrations", "completed"] == 1
    assert samples["rehome_migrations_running",] == 3
    assert samples["rehome_migrations_need_operator",] == 1
    assert samples["rehome_instances_down",] == 2
    assert samples["rehome_upgrades_waiting",] == 1
    assert samples["rehome_migrations_in_line",] == 1
    assert samples["rehome_step_failed_tries_total", "roll_back"] == 10
    assert samples["rehome_retries_waiting", "prepare"] == 1
    assert samples["rehome_outbox_unsent",] == 1
    assert samples["rehome_outbox_oldest_unsent_seconds",] > 0
    assert samples["rehome_downtime_seconds_sum", "moved"] == pytest.approx(9, abs=0.1)
    assert samples["rehome_downtime_seconds_bucket", "10.0", "moved"] == 1
    assert samples["rehome_downtime_seconds_bucket", "5.0", "moved"] == 0
    assert samples["rehome_moves_total", "cold", "completed"] == 1
    assert samples["rehome_moved_bytes_total", "cold"] == 10**9
    assert samples["rehome_downtime_seconds_count", "rolled_back"] == 1
    assert (
        samples["rehome_step_seconds_bucket", "+Inf", "accept"]
        == samples["rehome_step_seconds_count", "accept"]
    )
    assert samples["rehome_dead_letters",] != samples["rehome_dead_letters",]  # NaN: no broker is set


async def test_a_console_without_a_journal_says_so(pg: Cluster) -> None:
    async with state_database(pg) as dsn, console_on(dsn) as client:
        for path in ("/", "/api/v1/overview", "/metrics"):
            answer = await client.get(path)
            assert (answer.status_code, "the journal is not there" in answer.text) == (503, True), path
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["parts"][0]["part"]) == (503, "journal")
        assert (await client.get("/healthz")).status_code == 200


async def test_a_login_that_may_only_read_the_journal_is_enough(pg: Cluster) -> None:
    name = f"reader_{secrets.token_hex(4)}"
    async with state_database(pg) as dsn, postgres_journal(dsn), seeds(dsn) as made:
        found = await made.everything()
        await made.allow_to_read(name, "secret")
        try:
            own = urlsplit(dsn)
            dsn_of_reader = (
                f"postgresql://{name}:secret@{own.netloc.rpartition('@')[2]}{own.path}?{own.query}"
            )
            async with console_on(dsn_of_reader) as client:
                for path in (
                    "/",
                    "/migrations",
                    f"/migrations/{found['failed']}",
                    "/dead-letters",
                    "/queues",
                    "/metrics",
                    "/readyz",
                ):
                    assert (await client.get(path)).status_code == 200, path
        finally:
            await made.drop_reader(name)


async def test_a_state_database_that_does_not_answer_is_named() -> None:
    with pytest.raises(Unreachable, match="REHOME_STATE_DSN"):
        async with console_on("postgresql://nobody@127.0.0.1:1/nothing"):
            pass


async def test_one_look_a_second_serves_all_browsers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rehome_consumer.console.live.EVERY", 0.01)
    answers: Iterator[str | Exception] = iter(["1", "1", "2", Unreachable("no answer"), "2"])
    asked = 0

    async def look() -> str:
        nonlocal asked
        asked += 1
        answer = next(answers, "2")
        if isinstance(answer, Exception):
            raise answer
        return answer

    live = Live(look, lambda: None)
    first, second = live.changes(), live.changes()
    for one in (first, second):
        assert (await anext(one)).startswith("retry: ")
    for one in (first, second):
        assert await anext(one) == CHANGED
    said = [await anext(first)]
    while said[-1] != WELL:
        said.append(await anext(first))
    assert said[-2:] == [TROUBLE, WELL]
    assert await anext(second) == WELL  # it has read nothing meanwhile: of what is over it hears nothing
    assert asked < 100
    await live.end()
    assert [text async for text in first if text.startswith("event")] == []


async def test_the_description_is_whole(client: httpx.AsyncClient) -> None:
    document = await json(client, "/openapi.json")
    text = str(document)
    names = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert names <= set(document["components"]["schemas"])
    assert {"/api/v1/migrations", "/api/v1/dead-letters/{letter_id}/replay"} <= set(document["paths"])
