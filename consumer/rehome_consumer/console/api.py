"""The JSON API under /api/v1. What it answers is described in docs/openapi.json, which `make lint` compares."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Request

from rehome_consumer.console.access import Person
from rehome_consumer.console.context import Console, Operates, Reads, Use
from rehome_consumer.console.documents import (
    DeadLetters,
    Discarded,
    Events,
    LetGo,
    LookedAt,
    Pausing,
    Prioritized,
    Priority,
    Problem,
    QueuedLetters,
    Queues,
    Reason,
    Replay,
    RollBack,
    Start,
    Started,
    Why,
)
from rehome_consumer.console.problems import MEDIA_TYPE, NotAllowed
from rehome_consumer.operators.documents import Log, Migrations, Overview, Timeline
from rehome_consumer.operators.reader import LOG_LINES, MOST

ERRORS: Final = {
    401: "Nobody that is known asks: sign in.",
    403: "This person may not do that.",
    404: "There is nothing with that id.",
    409: "It is refused, for the reason given.",
    422: "A parameter is wrong.",
    503: "Something does not answer; try again later.",
}

router = APIRouter(prefix="/api/v1", tags=["v1"])

LetterId = Annotated[str, Path(min_length=6, max_length=200, description="The dead letter's id.")]
Form = Annotated[str, Header(alias="X-CSRF-Token", include_in_schema=False)]


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "description": ERRORS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


@router.get("/overview", responses=_errors(401, 503))
async def overview(console: Use, _: Reads) -> Overview:
    """What moves, what waits, what needs an operator."""
    return await console.overview()


@router.get("/migrations", responses=_errors(401, 422, 503))
async def migrations(
    console: Use,
    _: Reads,
    of: Annotated[UUID | None, Query(description="An instance's or a migration's id.")] = None,
    state: Annotated[
        list[str] | None, Query(max_length=20, description="Only these states; may be repeated.")
    ] = None,
    over: Annotated[bool | None, Query(description="Only those that are over, or that are not.")] = None,
    after: Annotated[str | None, Query(max_length=100, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many.")] = 50,
) -> Migrations:
    """Migrations, newest first."""
    return await console.reader.migrations(wanted=of, states=state, over=over, after=after, limit=limit)


@router.get("/migrations/{migration_id}", responses=_errors(401, 404, 422, 503))
async def migration(console: Use, _: Reads, migration_id: UUID) -> Timeline:
    """One migration with its steps, history, events and facts."""
    return await console.reader.timeline(migration_id)


@router.get("/migrations/{migration_id}/events", responses=_errors(401, 404, 422, 503))
async def events(console: Use, _: Reads, migration_id: UUID) -> Events:
    """The events of one migration."""
    return Events(events=(await console.reader.timeline(migration_id)).events)


@router.get("/migrations/{migration_id}/log", responses=_errors(401, 422, 503))
async def log(
    console: Use,
    _: Reads,
    migration_id: UUID,
    before: Annotated[
        int | None, Query(ge=1, description="`before` of the answer that has the newer ones.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=LOG_LINES, description="How many.")] = 200,
) -> Log:
    """The last lines that consumers have logged in its steps, oldest first; they are kept for REHOME_LOG_DAYS."""
    return await console.reader.log(migration_id, before=before, limit=limit)


@router.get("/dead-letters", responses=_errors(401, 503))
async def dead_letters(console: Use, _: Reads) -> DeadLetters:
    """Dead letters of open migrations, as the journal knows them."""
    return DeadLetters(
        dead_letters=await console.reader.dead_letters(), in_queue=await console.broker.dead_letters()
    )


@router.get("/queues", responses=_errors(401, 503))
async def queues(console: Use, _: Reads) -> Queues:
    """The broker's queues, and how many read them."""
    return await console.queues()


@router.get("/dead-letters/queue", responses=_errors(401, 403, 503))
async def queue(console: Use, _: Operates) -> QueuedLetters:
    """All dead letters. They are read from the queue and put back, one tool at a time: for operators."""
    return QueuedLetters(dead_letters=await console.acts.queue())


@router.get("/dead-letters/{letter_id}", responses=_errors(401, 403, 404, 422, 503))
async def dead_letter(console: Use, _: Operates, letter_id: LetterId) -> LookedAt:
    """A dead letter, complete, and what its replay would do. It is read from its queue, and put back: for operators."""
    return await console.acts.look_at(letter_id)


@router.post("/dead-letters/{letter_id}/replay", responses=_errors(401, 403, 404, 422, 503))
async def replay(
    request: Request, console: Use, who: Operates, letter_id: LetterId, given: Reason, form: Form = ""
) -> Replay:
    """Send a dead letter again, to the handler that failed and to no other."""
    wanted_by(request, console, who, form)
    return await console.acts.replay(letter_id, who, given.why, dry_run=given.dry_run)


@router.post("/dead-letters/{letter_id}/discard", responses=_errors(401, 403, 404, 422, 503))
async def discard(
    request: Request, console: Use, who: Operates, letter_id: LetterId, given: Why, form: Form = ""
) -> Discarded:
    """Remove a dead letter; a copy and the reason stay in the journal."""
    wanted_by(request, console, who, form)
    return await console.acts.discard(letter_id, who, given.why)


@router.post("/upgrades", responses=_errors(401, 403, 409, 422, 503))
async def start(request: Request, console: Use, who: Operates, given: Start, form: Form = "") -> Started:
    """Publish an upgrade, as billing would: a move begins, or what the plan grants is applied."""
    wanted_by(request, console, who, form)
    return await console.acts.start(who, given)


@router.post("/migrations/{migration_id}/roll-back", responses=_errors(401, 403, 404, 409, 422, 503))
async def roll_back(
    request: Request, console: Use, who: Operates, migration_id: UUID, given: Reason, form: Form = ""
) -> RollBack:
    """Undo a migration: the customer goes back to the pool."""
    wanted_by(request, console, who, form)
    return await console.acts.roll_back(migration_id, who, given.why, dry_run=given.dry_run)


@router.post("/migrations/{migration_id}/move-now", responses=_errors(401, 403, 404, 409, 422, 503))
async def move_now(
    request: Request, console: Use, who: Operates, migration_id: UUID, given: Why, form: Form = ""
) -> LetGo:
    """Let a migration go on outside of the maintenance window, or before its upgrade's `not_before`."""
    wanted_by(request, console, who, form)
    return await console.acts.move_now(migration_id, who, given.why)


@router.post("/migrations/{migration_id}/prioritize", responses=_errors(401, 403, 404, 409, 422, 503))
async def prioritize(
    request: Request, console: Use, who: Operates, migration_id: UUID, given: Priority, form: Form = ""
) -> Prioritized:
    """Let a migration go before others that wait for a slot, or after them."""
    wanted_by(request, console, who, form)
    return await console.acts.prioritize(migration_id, who, given.why, given.priority)


@router.post("/pause", responses=_errors(401, 403, 422, 503))
async def pause(request: Request, console: Use, who: Operates, given: Why, form: Form = "") -> Pausing:
    """Let no new move begin; those whose instance is stopped go on to their end."""
    wanted_by(request, console, who, form)
    return await console.acts.pause(who, given.why, paused=True)


@router.post("/resume", responses=_errors(401, 403, 422, 503))
async def resume(request: Request, console: Use, who: Operates, given: Why, form: Form = "") -> Pausing:
    """Let moves begin again."""
    wanted_by(request, console, who, form)
    return await console.acts.pause(who, given.why, paused=False)


def wanted_by(request: Request, console: Console, who: Person, form: str) -> None:
    """Raise NotAllowed where another site may have sent this."""
    if not console.access.may_post(request, who, form):
        raise NotAllowed("this form is out of date, or another site has sent it: load the page again")


DESCRIPTION: Final = """\
Migrations, their timelines, and dead letters. Sign in with `Authorization: Bearer TOKEN`.
Times are UTC, lengths of time seconds. Errors are application/problem+json."""


def described(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with what FastAPI does not know: how to sign in, and the form of errors."""
    schemas = document["components"]["schemas"]
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    return document
