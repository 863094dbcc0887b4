"""The pages, made by the server. With `?part=1` a page's content alone: the script puts it in place of the old one."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import Annotated, Any, Final
from urllib.parse import parse_qs, urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from rehome_consumer import saga
from rehome_consumer.console.access import COOKIE, LASTS, same_site
from rehome_consumer.console.api import LetterId, wanted_by
from rehome_consumer.console.context import Console, Operates, Reads, Use, console_of
from rehome_consumer.console.documents import Problem
from rehome_consumer.console.presenting import attempts, environment
from rehome_consumer.console.problems import NotAllowed
from rehome_consumer.errors import Refused
from rehome_consumer.model import HIGHEST, LOWEST, NORMAL
from rehome_consumer.operators.in_line import in_line
from rehome_consumer.operators.report import attempt_of
from rehome_consumer.ports.engine import ENDED
from rehome_consumer.rabbitmq.topology import queue_of

OUTCOMES: Final = ("failed", "failing", *sorted(ENDED))
"""States to choose from: what needs a look, and how it ended. Others are reached by the counts on the first page."""
SLOWLY: Final = 0.5
"""Seconds that a wrong token takes."""
SHORTEST_REASON: Final = 3
LONGEST_REASON: Final = 500

router = APIRouter()
_templates = environment()


def static() -> StaticFiles:
    """Style and script."""
    return StaticFiles(directory=str(files("rehome_consumer.console") / "static"))


@router.get("/")
async def now(request: Request, console: Use, _: Reads) -> Response:
    """What moves, what waits, what needs an operator."""
    return _page(request, "now.html", overview=await console.overview())


@router.get("/migrations")
async def history(
    request: Request,
    console: Use,
    _: Reads,
    state: Annotated[str, Query(max_length=40)] = "",
    of: Annotated[str, Query(max_length=100)] = "",
    after: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """All migrations, or those of one outcome or one instance."""
    wanted, mistake = _id(of)
    found = None
    if not mistake:
        found = await console.reader.migrations(wanted=wanted, states=[state] if state else None, after=after)
    query = {"state": state, "of": of, "after": found.next if found and found.next else ""}
    following = urlencode({key: value for key, value in query.items() if value})
    return _page(
        request, "history.html", found=found, state=state, of=of, mistake=mistake, outcomes=OUTCOMES,
        following=following if found and found.next else None, is_first=after is None,
    )  # fmt: skip


@router.get("/migrations/{migration_id}")
async def one(request: Request, console: Use, _: Reads, migration_id: UUID) -> Response:
    """One migration."""
    timeline = await console.reader.timeline(migration_id)
    number = timeline.migration.attempt
    last = attempt_of(number, await console.reader.facts(migration_id, number), timeline.steps)
    return _page(
        request,
        "migration.html",
        timeline=timeline,
        one=timeline.migration,
        attempts=attempts(timeline),
        last=last,
        log=await console.reader.log(migration_id),
    )


@router.get("/dead-letters")
async def dead_letters(request: Request, console: Use, _: Reads) -> Response:
    """The dead letters that the journal knows."""
    return _page(
        request, "dead_letters.html", found=await console.reader.dead_letters(),
        in_queue=await console.broker.dead_letters(), trouble=console.broker.trouble(),
    )  # fmt: skip


@router.get("/queues")
async def queues(request: Request, console: Use, _: Reads) -> Response:
    """The broker's queues, and how many read them."""
    found = await console.queues()
    of_steps = {queue_of(step.name) for step in saga.MIGRATION}
    return _page(request, "queues.html", found=found, of_steps=of_steps)


@router.get("/dead-letters/queue")
async def queue(request: Request, console: Use, _: Operates) -> Response:
    """All dead letters, read from the queue."""
    return _page(request, "queue.html", found=await console.acts.queue())


@router.get("/dead-letters/{letter_id}")
async def dead_letter(request: Request, console: Use, _: Operates, letter_id: LetterId) -> Response:
    """One dead letter, complete, with what may be done about it."""
    return _page(request, "dead_letter.html", letter=await console.acts.look_at(letter_id))


@router.post("/dead-letters/{letter_id}/replay")
async def replay(request: Request, console: Use, who: Operates, letter_id: LetterId) -> Response:
    """Send it again."""
    why = await _why(request, console)
    done = await console.acts.replay(letter_id, who, why, dry_run=False)
    if done.refused:
        raise Refused(f"it was not replayed: {done.what}")
    return _page(
        request,
        "done.html",
        title="Replayed",
        what=f"It will {done.what.removeprefix('would ')}.",
        back="/dead-letters",
    )


@router.post("/dead-letters/{letter_id}/discard")
async def discard(request: Request, console: Use, who: Operates, letter_id: LetterId) -> Response:
    """Remove it."""
    why = await _why(request, console)
    done = await console.acts.discard(letter_id, who, why)
    what = f"A copy is in the journal. {done.left or ''}"
    return _page(request, "done.html", title="Discarded", what=what, back="/dead-letters")


@router.get("/migrations/{migration_id}/roll-back")
async def before_roll_back(request: Request, console: Use, who: Operates, migration_id: UUID) -> Response:
    """What a rollback would do."""
    order = await console.acts.roll_back(migration_id, who, "", dry_run=True)
    return _page(request, "roll_back.html", order=order)


@router.post("/migrations/{migration_id}/roll-back")
async def roll_back(request: Request, console: Use, who: Operates, migration_id: UUID) -> Response:
    """Undo it."""
    why = await _why(request, console)
    done = await console.acts.roll_back(migration_id, who, why, dry_run=False)
    what = (
        "A consumer has taken it up."
        if done.taken_up
        else "No consumer has taken it up yet: is one running? The request is stored, and done as soon as one runs."
    )
    return _page(
        request, "done.html", title="Rollback requested", what=what, back=f"/migrations/{migration_id}"
    )


@router.get("/migrations/{migration_id}/move-now")
async def before_move_now(request: Request, _: Operates, migration_id: UUID) -> Response:
    """What it would do."""
    return _page(request, "move_now.html", migration_id=migration_id)


@router.post("/migrations/{migration_id}/move-now")
async def move_now(request: Request, console: Use, who: Operates, migration_id: UUID) -> Response:
    """Let it go on outside of the maintenance window."""
    done = await console.acts.move_now(migration_id, who, await _why(request, console))
    what = (
        f"Moves are paused by {done.paused.by}: it goes on once they are resumed."
        if done.paused
        else "It goes on within a minute."
    )
    return _page(request, "done.html", title="Let go", what=what, back=f"/migrations/{migration_id}")


@router.get("/migrations/{migration_id}/prioritize")
async def before_prioritize(request: Request, console: Use, _: Operates, migration_id: UUID) -> Response:
    """What priority it has, and those there are."""
    one = (await console.reader.timeline(migration_id)).migration
    return _page(
        request, "prioritize.html", one=one, priorities=range(HIGHEST, LOWEST - 1, -1), normal=NORMAL
    )


@router.post("/migrations/{migration_id}/prioritize")
async def prioritize(request: Request, console: Use, who: Operates, migration_id: UUID) -> Response:
    """Let it go before others that wait for a slot, or after them."""
    why, given = await _why(request, console), (await _form(request)).get("priority", "")
    if given not in {str(one) for one in range(LOWEST, HIGHEST + 1)}:
        raise Refused(f"choose a priority from {LOWEST} to {HIGHEST}. Nothing was done")
    done = await console.acts.prioritize(migration_id, who, why, int(given))
    place = in_line(done.place_in_line, done.length_of_line, done.priority)
    what = f"It had priority {done.before}. Now: {place or f'priority {done.priority}'}."
    return _page(
        request, "done.html", title="Priority changed", what=what, back=f"/migrations/{migration_id}"
    )


@router.get("/pause")
async def before_pause(request: Request, console: Use, _: Operates) -> Response:
    """Whether moves are paused, and the button for the other."""
    return _page(request, "pause.html", overview=await console.overview())


@router.post("/pause")
async def pause(request: Request, console: Use, who: Operates) -> Response:
    """Let no new move begin."""
    done = await console.acts.pause(who, await _why(request, console), paused=True)
    what = "No new move begins." if done.changed else "It was paused already; the earlier order stays."
    return _page(request, "done.html", title="Paused", what=what, back="/")


@router.post("/resume")
async def resume(request: Request, console: Use, who: Operates) -> Response:
    """Let moves begin again."""
    done = await console.acts.pause(who, await _why(request, console), paused=False)
    what = "What waited goes on within a minute." if done.changed else "Moves were not paused."
    return _page(request, "done.html", title="Resumed", what=what, back="/")


@router.get("/sign-in")
async def sign_in_form(request: Request, console: Use) -> Response:
    """The form for a token."""
    if not console.access.closed:
        return RedirectResponse("/", 303)
    return _page(request, "sign_in.html", wrong=False)


@router.post("/sign-in")
async def sign_in(request: Request, console: Use) -> Response:
    """Take the token, and give a cookie."""
    if not same_site(request):
        raise NotAllowed("another site has sent this form: sign in on this page")
    person = console.access.by_token((await _form(request)).get("token", "").strip())
    if person is None:
        await asyncio.sleep(SLOWLY)
        return _page(request, "sign_in.html", status=403, wrong=True)
    response = RedirectResponse("/", 303)
    response.set_cookie(
        COOKIE, console.access.session(person), max_age=LASTS, httponly=True, samesite="strict",
        secure=console.access.is_https(request),
    )  # fmt: skip
    return response


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """Forget the cookie."""
    if not same_site(request):
        raise NotAllowed("another site has sent this form")
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(COOKIE)
    return response


def error_page(request: Request, problem: Problem) -> Response:
    """The page of an error."""
    return _page(request, "error.html", status=problem.status, problem=problem)


def _page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    console = console_of(request)
    person = getattr(request.state, "person", None) or console.access.person(request)
    html = _templates.get_template(template).render(
        person=person,
        csrf=console.access.csrf(request, person) if person else "",
        path=request.url.path,
        part="part" in request.query_params,
        has_tokens=bool(console.access.tokens),
        **values,
    )
    return HTMLResponse(html, status)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, as browsers send it."""
    try:
        found = parse_qs((await request.body()).decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return {}
    return {name: given[0] for name, given in found.items()}


async def _why(request: Request, console: Console) -> str:
    """Why an act is wanted. Raises NotAllowed where another site may have sent the form, Refused without a reason."""
    form = await _form(request)
    wanted_by(request, console, request.state.person, form.get("csrf", ""))
    why = " ".join(form.get("why", "").split())
    if not SHORTEST_REASON <= len(why) <= LONGEST_REASON:
        raise Refused("say why, for the journal: 3 to 500 characters. Nothing was done")
    return why


def _id(text: str) -> tuple[UUID | None, str]:
    """An id, and what is wrong with the text."""
    try:
        return (UUID(text.strip()) if text.strip() else None), ""
    except ValueError:
        return None, "this is no complete id, such as 7e77fa1e-d1d7-45cd-a43e-0f7d03ee63aa"
