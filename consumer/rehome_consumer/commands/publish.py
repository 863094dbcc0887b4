"""`rehome publish plan.upgraded`: publish as billing would, by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from pydantic import ValidationError

from rehome_consumer import bootstrap
from rehome_consumer.commands.arguments import a_moment, a_priority, a_text, an_id
from rehome_consumer.commands.lines import say
from rehome_consumer.commands.show import as_json
from rehome_consumer.errors import NotFound, SettingsError
from rehome_consumer.ports.engine import Message
from rehome_consumer.settings import read_settings
from rehome_events.billing import PlanUpgraded
from rehome_events.envelope import encode, new_event
from rehome_events.parts import Entitlements

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rehome_consumer.settings import Settings


def add(commands: Any) -> None:
    """Register the command."""
    publish = commands.add_parser(
        "publish",
        help="publish an event as billing would",
        description="Publish plan.upgraded for one instance and wait for the broker's confirm. Customer and "
        "subscription are looked up in the platform's database unless given. Needs REHOME_AMQP_URL.",
    )
    publish.add_argument("type", choices=["plan.upgraded"], help="the event")
    publish.add_argument("--instance", type=an_id, required=True, metavar="ID", help="the instance's id")
    publish.add_argument(
        "--to-plan", required=True, type=a_text, metavar="NAME", help="the new plan, such as premium-monthly"
    )
    publish.add_argument("--from-plan", type=a_text, default="unknown", metavar="NAME", help="the old plan")
    publish.add_argument("--customer", type=an_id, metavar="ID", help="the customer's id")
    publish.add_argument("--subscription", type=an_id, metavar="ID", help="the subscription's id")
    publish.add_argument("--db-type", choices=["shared", "dedicated"], help="kind of database granted")
    add_terms(publish)
    publish.add_argument("--event-id", type=an_id, metavar="ID", help="the event's id (default: a new one)")
    publish.add_argument("--json", action="store_true", help="print the published event as JSON")
    publish.set_defaults(work=_publish, complain=publish.error)


def add_terms(parser: argparse.ArgumentParser) -> None:
    """What an upgrade grants, and from when on."""
    parser.add_argument(
        "--tier",
        type=a_text,
        metavar="NAME",
        help="the new plan's tier (default: the plan's name up to its '-')",
    )
    parser.add_argument("--cpu", type=float, metavar="CORES", help="CPU limit granted")
    parser.add_argument("--memory", metavar="SIZE", help="memory limit granted, such as 8G")
    parser.add_argument("--storage", metavar="SIZE", help="storage limit granted, such as 50G")
    parser.add_argument(
        "--not-before",
        type=a_moment,
        metavar="TIME",
        help="when the instance may be stopped at the earliest, such as 2026-09-30T22:00Z",
    )
    parser.add_argument(
        "--priority",
        type=a_priority,
        metavar="0-9",
        help="which goes first among those that wait for a slot: the higher (default: 4, which is normal)",
    )


async def _publish(args: argparse.Namespace) -> int:
    settings = read_settings(needed={"amqp_url"})
    granted = granted_by(args)
    customer, subscription = await _owner(settings, args)
    data = valid(
        args,
        lambda: PlanUpgraded(
            instance_id=args.instance,
            customer_id=customer,
            subscription_id=subscription,
            from_plan=args.from_plan,
            to_plan=args.to_plan,
            plan_tier=tier_of(args),
            entitlements=granted if granted != Entitlements() else None,
            not_before=args.not_before,
            priority=args.priority,
        ),
    )
    event = new_event(
        data, subject=args.instance, id=args.event_id or uuid4(), time=datetime.now(UTC), source="/billing"
    )
    async with bootstrap.broker(settings, "rehome publish") as broker:
        await broker.publish(
            "billing",
            event.type,
            Message.of_event(encode(event)),
            mandatory=True,
        )
    if args.json:
        as_json(event.model_dump(mode="json", exclude_none=True))
    else:
        say(
            f"published {event.type} {event.id} for instance {args.instance}: {args.from_plan} -> {args.to_plan}",
            f"follow it with: rehome status {args.instance}",
        )
    return 0


def tier_of(args: argparse.Namespace) -> str:
    """The new plan's tier."""
    return str(args.tier or args.to_plan.partition("-")[0])


def valid(args: argparse.Namespace, make: Callable[[], PlanUpgraded]) -> PlanUpgraded:
    """The event's data; ends the command where an argument cannot stand in it."""
    try:
        return make()
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        option = str(first["loc"][0]).removeprefix("plan_").replace("_", "-")
        args.complain(f"argument --{option}: {first['msg']}")
        raise


def granted_by(args: argparse.Namespace) -> Entitlements:
    """What the command line says that the plan grants; ends the command where that is no limit."""
    try:
        return Entitlements(
            cpu_limit=args.cpu, memory_limit=args.memory, storage_limit=args.storage, db_type=args.db_type
        )
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        option = str(first["loc"][0]).removesuffix("_limit")
        wanted = "a number above 0" if option == "cpu" else "a size such as 8G"
        args.complain(f"argument --{option}: {getattr(args, option)!r} is not {wanted}")
        raise


async def _owner(settings: Settings, args: argparse.Namespace) -> tuple[UUID, UUID]:
    """Customer and subscription: as given, else from the platform's database."""
    if args.customer and args.subscription:
        return args.customer, args.subscription
    if "platform_dsn" not in settings.model_fields_set:
        raise SettingsError("give --customer and --subscription, or set REHOME_PLATFORM_DSN to look them up")
    async with bootstrap.platform_pool(settings) as pool:
        row = await bootstrap.owner_of(pool, args.instance)
    if row is None:
        raise NotFound(
            f"instance {args.instance} is not in the platform's table `instances`; is the id right?"
        )
    return args.customer or row[0], args.subscription or row[1] or args.instance
