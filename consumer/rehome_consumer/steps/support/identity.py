"""Whose role it is: proven before anything is done to it, since odoo.conf, which names it, is the tenant's own file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehome_consumer.errors import Incompatible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehome_consumer.model import Instance, RoleFacts, Server


def require_tenant(instance: Instance, role: RoleFacts, source: Server) -> None:
    """The role that odoo.conf names is this tenant's, and of no other tenant.

    It owns the database (or an administrator does), is the one in the record, may do nothing but log in, and is tied to
    nothing outside of the database: it will be closed, and may be dropped one day.

    Raises:
        Incompatible: it is not; names the role, what is in the way, and what to do.
    """
    database = instance.database
    if instance.db_user not in (None, "", role.name):
        raise Incompatible(
            f"odoo.conf's db_user is {role.name}, the record's {instance.db_user}: find out which role owns database "
            f"{database} on {source.name}, put it into both and replay the upgrade"
        )
    if role.superuser:
        raise Incompatible(
            f"role {role.name} on {source.name} is a superuser: no fence holds it. "
            "Make it an ordinary role (ALTER ROLE ... NOSUPERUSER) and replay the upgrade"
        )
    if role.owner != role.name and not role.owner_is_superuser:
        raise Incompatible(
            f"database {database} on {source.name} belongs to role {role.owner}, not to {role.name}, which odoo.conf "
            "names as db_user: fencing that one would not stop the tenant. Correct odoo.conf and the record, or "
            "ALTER DATABASE ... OWNER TO, and replay the upgrade"
        )
    if role.owner != role.name and not instance.db_user:
        raise Incompatible(
            f"database {database} on {source.name} belongs to an administrator, and the record names no db_user: only "
            f"the tenant's odoo.conf says that its role is {role.name}. Put db_user into the record and replay the "
            "upgrade"
        )
    require_alone(database, role, source)


def require_sole_user(role: str, others: Sequence[Instance], server: Server) -> None:
    """No other instance logs in with this role, as far as the platform's records say.

    The server may know nothing of it: where an administrator owns both databases, and PUBLIC has the privileges, no
    catalog ties the role to the other one.

    Raises:
        Incompatible: another one does; names it.
    """
    if others:
        named = ", ".join(f"{one.database} ({one.id})" for one in others)
        raise Incompatible(
            f"role {role} on {server.name} is the login of other instances, too, as their records say: {named}. "
            "Fencing it would stop them. Give each instance a role of its own (its record's db_user and its odoo.conf) "
            "and replay the upgrade"
        )


def require_alone(database: str, role: RoleFacts, server: Server) -> None:
    """The role may do nothing but log in, and is tied to nothing outside of the database.

    Raises:
        Incompatible: it may, or is; names what, and what to do.
    """
    whose = f"role {role.name} on {server.name}"
    if more := role.attributes:
        raise Incompatible(
            f"{whose} may do more than a tenant's role: {', '.join(more)}. Take that away "
            f"(ALTER ROLE ... {' '.join(f'NO{one}' for one in more)}) and replay the upgrade"
        )
    if role.member_of:
        raise Incompatible(
            f"{whose} is a member of {', '.join(role.member_of)}, and has those rights too: REVOKE them and replay "
            "the upgrade"
        )
    if role.members:
        raise Incompatible(
            f"{whose} is granted to {', '.join(role.members)}, who would pass the fence: REVOKE it from them and "
            "replay the upgrade"
        )
    if role.elsewhere:
        raise Incompatible(
            f"{whose} is not {database}'s alone: it {', '.join(role.elsewhere)}, so fencing it could stop another "
            "tenant too. Give this instance a role of its own, or take that away (there: DROP OWNED BY, or REVOKE), "
            "and replay the upgrade"
        )
    if role.connected_to:
        raise Incompatible(
            f"{whose} is connected to {', '.join(role.connected_to)} too, so someone else uses it: give this instance "
            "a role of its own and replay the upgrade"
        )


def require_free(role: RoleFacts, target: Server) -> None:
    """A role of the tenant's future name that is on the dedicated server already is an ordinary login.

    Raises:
        Incompatible: it is more than that.
    """
    more = [*role.attributes, *(f"member of {one}" for one in role.member_of)]
    more += [f"granted to {one}" for one in role.members]
    if more:
        raise Incompatible(
            f"role {role.name} is on {target.name} already, and more than a tenant's login ({', '.join(more)}): take "
            "that away (ALTER ROLE, REVOKE) or let database-service name another user, and replay the upgrade"
        )
