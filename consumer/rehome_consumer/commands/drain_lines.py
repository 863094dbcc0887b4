"""A drain's plan, and what it came to, in lines and as documents."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.commands.lines import detail, folded, moment
from rehome_consumer.operators.drain_parts import UNDONE
from rehome_consumer.operators.drain_plan import sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehome_consumer.model import Server
    from rehome_consumer.operators.drain_parts import Followed, Summary
    from rehome_consumer.operators.drain_plan import Entry

HEADINGS: Final = ("INSTANCE", "STATUS", "SIZE", "DATABASE")
WIDTHS: Final = (36, 11, 9, 18)
GIGABYTE: Final = 1_000_000_000


def plan_lines(server: Server, entries: Sequence[Entry]) -> list[str]:
    """The plan: one row each, in the order in which they are moved, and what is to be known below it."""
    if not entries:
        return detail(f"no instance's record says that its database is on {server.name}", "")
    lines = folded(HEADINGS, WIDTHS)
    for one in entries:
        lines += _rows(one)
    of = sums(entries)
    moves, under_way, left_out = of["moves"], of["under_way"], of["left_out"]
    text = (
        f"{moves['instances']} would be moved ({size(moves['bytes'])}), {under_way['instances']} under way "
        f"({size(under_way['bytes'])}), {left_out['instances']} left out"
    )
    lines += detail(text, "")
    if moves["instances"]:
        lines += detail(
            f"nothing was changed; to begin: rehome drain {shlex.quote(server.name)} --publish --to-plan NAME",
            "",
        )
    return lines


def plan_document(server: Server, entries: Sequence[Entry]) -> dict[str, Any]:
    """The plan as JSON."""
    return {
        "pool": server.name,
        "sums": sums(entries),
        "instances": [{**one.document(), "needs_operator": one.needs_operator} for one in entries],
    }


def outcome_lines(server: Server, summary: Summary) -> list[str]:
    """What a drain came to, and what goes on."""
    lines = detail(_counted(summary), "")
    for one in summary.of("failed"):
        lines += detail(f"{one.instance_id} waits for an operator; rehome status {one.instance_id}")
    for one in summary.of(*UNDONE):
        reason = f": {one.view.reason}" if one.view and one.view.reason else ""
        lines += detail(f"{one.instance_id} {_words(one)}{reason}")
    going = summary.under_way
    if going:
        lines += detail(
            f"under way: {len(going)}, to the end without this command; rehome status shows it", ""
        )
    if summary.left or going:
        lines += detail(f"the same command goes on with what is left on {server.name}", "")
    return lines


def outcome_document(server: Server, summary: Summary, *, stopped: bool) -> dict[str, Any]:
    """What a drain came to, as JSON."""
    return {
        "pool": server.name,
        "stopped": stopped,
        "gave_up": summary.gave_up,
        "migrations": [
            {
                "id": one.id,
                "instance": one.instance_id,
                "state": one.state,
                "reason": one.view.reason if one.view else None,
                "published_now": one.ours,
            }
            for one in summary.followed
        ],
        "left": [one.document() for one in summary.left],
        "left_out": [one.document() for one in summary.left_out],
    }


def size(bytes_: int) -> str:
    """An amount of data: `54 MB`, `12.3 GB`."""
    return f"{bytes_ / GIGABYTE:.1f} GB" if bytes_ >= GIGABYTE else f"{bytes_ / 1_000_000:.0f} MB"


def _rows(one: Entry) -> list[str]:
    database = one.instance.database
    fits = len(database) <= WIDTHS[-1]
    amount = "" if one.bytes is None else size(one.bytes)
    lines = folded((one.instance.id, one.instance.status, amount, database if fits else ""), WIDTHS)
    lines += [] if fits else detail(f"database {database}")
    if one.verdict == "under_way" and one.migration is not None:
        need = "; it needs an operator" if one.needs_operator else ""
        lines += detail(f"under way: migration {one.migration.id}, {one.migration.state}{need}")
    if one.why:
        lines += detail(f"left out: {one.why}")
    if one.rolled_back is not None:
        why = one.rolled_back.reason or "no reason is recorded"
        lines += detail(f"rolled back at {moment(one.rolled_back.ended_at)}: {why}")
    return lines


def _counted(summary: Summary) -> str:
    states: dict[str, int] = {}
    for one in summary.followed:
        word = "under way" if one.counts else _words(one)
        states[word] = states.get(word, 0) + 1
    parts = [f"{number} {word}" for word, number in states.items()]
    parts.append(f"{len(summary.left)} still to be moved")
    parts.append(f"{len(summary.left_out)} left out")
    return ", ".join(parts)


def _words(one: Followed) -> str:
    return "waiting for an operator" if one.state == "failed" else one.state.replace("_", " ")
