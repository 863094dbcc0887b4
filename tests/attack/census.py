"""Roles, memberships, settings, databases and rights of a server: one line each, to be compared before and after.

Only the shared catalogues are read, in database postgres, where no tenant can have created anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sandbox.postgres.server import Cluster

Census = frozenset[str]

_SQL: Final = """
    SELECT concat_ws(' ', 'role', rolname, CASE WHEN rolsuper THEN 'SUPERUSER' END,
                     CASE WHEN rolinherit THEN 'INHERIT' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
                     CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolcanlogin THEN 'LOGIN' END,
                     CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
                     'limit', rolconnlimit, 'until', rolvaliduntil, 'password', md5(rolpassword))
    FROM pg_authid
    UNION ALL SELECT concat_ws(' ', 'membership of', m.member::regrole, 'in', m.roleid::regrole,
                               CASE WHEN m.admin_option THEN 'ADMIN' END)
    FROM pg_auth_members m WHERE m.roleid >= 16384 OR m.member >= 16384
    UNION ALL SELECT concat_ws(' ', 'setting of', coalesce(nullif(setrole, 0)::regrole::text, 'all'), 'in',
                               coalesce(d.datname, 'all'), s.setconfig::text)
    FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
    UNION ALL SELECT concat_ws(' ', 'database', datname, 'of', datdba::regrole, 'limit', datconnlimit,
                               'connections', datallowconn, 'template', datistemplate,
                               'privileges', (SELECT array_agg(a ORDER BY a) FROM unnest(
                                   coalesce(datacl, acldefault('d', datdba))::text[]) a)::text,
                               'comment', shobj_description(oid, 'pg_database'))
    FROM pg_database
    UNION ALL SELECT concat_ws(' ', 'rights and things of', s.refobjid::regrole, 'in', coalesce(d.datname, 'all'), ':',
                               s.classid::regclass, s.deptype)
    FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid WHERE s.refclassid = 'pg_authid'::regclass
    GROUP BY s.refobjid, d.datname, s.classid, s.deptype
    UNION ALL SELECT concat_ws(' ', 'slot', slot_name) FROM pg_replication_slots
    UNION ALL SELECT concat_ws(' ', 'parameter granted', parname) FROM pg_parameter_acl
"""


async def census(cluster: Cluster) -> Census:
    """The lines as they are now."""
    async with cluster.connect() as connection:
        return frozenset(row[0] for row in await connection.fetch(_SQL))


def changes(before: Census, after: Census, *, but: tuple[str, ...] = ()) -> list[str]:
    """Lines that are missing and new; those that contain one of these words are left out."""
    found = [(f"missing: {line}") for line in before - after] + [f"new: {line}" for line in after - before]
    return sorted(line for line in found if not any(word in line for word in but))
