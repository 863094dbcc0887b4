"""The signature of a database's catalogs, on a pool and on a dedicated server: what changes it, and what does not."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.adapters.postgres.verification import PostgresVerifier
from rehome_consumer.errors import Conflict, NotFound
from rehome_consumer.sql import administrator
from sandbox.postgres.databases import create_role, drop_database, quoted
from sandbox.postgres.tenants import Tenant, create_tiny_tenant, nasty_password
from tests.contract.real_servers import server_of
from tests.support.warm_stage import new_enough

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandbox.postgres.server import Cluster
    from tests.support.postgres_versions import Pair


@dataclass(frozen=True)
class Signed:
    """A tiny tenant's database, and another role of its server."""

    cluster: Cluster
    tenant: Tenant
    other: str

    async def signature(self, snapshot: str | None = None) -> str:
        server = server_of(self.cluster, "pool-1", "shared")
        return await PostgresVerifier().signature(server, self.tenant.database, snapshot)

    async def execute(self, statements: str, *, as_tenant: bool = True) -> None:
        """Each in a transaction of its own; `{other}` is the other role."""
        login = {"user": self.tenant.role, "password": self.tenant.password} if as_tenant else {}
        async with self.cluster.connect(self.tenant.database, **login) as connection:
            for statement in statements.replace("{other}", quoted(self.other)).split(";; "):
                await connection.execute(statement)

    async def changes(self, statements: str, *, as_tenant: bool = True) -> bool:
        """Whether that changes the signature."""
        before = await self.signature()
        assert await self.signature() == before
        await self.execute(statements, as_tenant=as_tenant)
        return await self.signature() != before


@pytest.fixture(scope="module", params=["pool", pytest.param("dedicated", marks=pytest.mark.long)])
async def signed(
    request: pytest.FixtureRequest, pg: Cluster, scratch: Path, versions: Pair
) -> AsyncIterator[Signed]:
    async with AsyncExitStack() as stack:
        cluster = pg
        if request.param == "dedicated":
            cluster = await stack.enter_async_context(new_enough(scratch, versions))
        made = Signed(cluster, Tenant(f"signed_{secrets.token_hex(4)}"), f"other_{secrets.token_hex(4)}")
        await create_tiny_tenant(cluster, made.tenant)
        await create_role(cluster, made.other, nasty_password())
        await made.execute(SPARE)
        await made.execute(SPARE_OF_ADMINISTRATOR, as_tenant=False)
        yield made
        await drop_database(cluster, made.tenant.database)


SPARE = """
CREATE SCHEMA spare; CREATE SEQUENCE spare.one; CREATE SEQUENCE spare.two;
CREATE TABLE spare.lines (id serial PRIMARY KEY, amount integer, line text, gone text);
CREATE INDEX spare_gone ON spare.lines (gone); CREATE INDEX spare_amount ON spare.lines (amount);
CREATE FUNCTION spare.it() RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION spare.fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION spare.left_over() RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE VIEW spare.seen AS SELECT id FROM spare.lines; CREATE TYPE spare.state AS ENUM ('a', 'b');
CREATE POLICY positive ON spare.lines USING (amount > 0);
CREATE POLICY also ON spare.lines USING (amount > 0);
CREATE MATERIALIZED VIEW spare.filled AS SELECT id, line FROM spare.lines; CREATE UNIQUE INDEX ON spare.filled (id);
CREATE INDEX spare_filled ON spare.filled (line); CREATE INDEX spare_unfilled ON spare.filled (line);
CREATE MATERIALIZED VIEW spare.named AS SELECT id, line FROM spare.lines;
CREATE INDEX spare_named ON spare.named (line);
CREATE MATERIALIZED VIEW spare.emptied AS SELECT 1 AS one;
CREATE TABLE spare.kept (id integer, line text); CREATE TABLE spare.published (id integer PRIMARY KEY);
CREATE SEQUENCE spare.unused; CREATE DOMAIN spare.tiny AS integer;
CREATE RULE aside AS ON UPDATE TO spare.lines DO INSTEAD NOTHING;
CREATE STATISTICS spare.unread ON id, amount FROM spare.lines;
CREATE TEXT SEARCH CONFIGURATION spare.search (copy = simple);
CREATE TEXT SEARCH CONFIGURATION spare.lost (copy = simple);
CREATE TABLE spare.next (LIKE mail_message INCLUDING ALL);
COMMENT ON TABLE spare.lines IS 'as it was'; GRANT SELECT ON spare.lines TO PUBLIC
"""

SPARE_OF_ADMINISTRATOR = """
CREATE FUNCTION spare.on_event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER rings ON ddl_command_end EXECUTE FUNCTION spare.on_event();
CREATE EVENT TRIGGER silent ON ddl_command_end EXECUTE FUNCTION spare.on_event();
CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing
"""

DEFINED = {
    "a table": "CREATE TABLE spare.more ()",
    "a table that is dropped": "DROP TABLE every_type",
    "a column": "ALTER TABLE spare.lines ADD COLUMN more integer",
    "a column that is dropped": "ALTER TABLE spare.lines DROP COLUMN gone",
    "a column that is renamed": "ALTER TABLE spare.lines RENAME line TO lined; "
    "ALTER TABLE spare.lines RENAME lined TO line",
    "a type of a column": "ALTER TABLE spare.kept ALTER line TYPE varchar",
    "a default": "ALTER TABLE spare.lines ALTER amount SET DEFAULT 1",
    "NOT NULL": "ALTER TABLE spare.lines ALTER amount SET NOT NULL",
    "how a column is stored": "ALTER TABLE spare.lines ALTER line SET STORAGE EXTERNAL",
    "an option": "ALTER TABLE spare.lines SET (fillfactor = 80)",
    "an index": "CREATE INDEX ON spare.lines (line)",
    "an index made beside writers": "CREATE INDEX CONCURRENTLY ON spare.lines (line, amount)",
    "an index that is dropped": "DROP INDEX spare.spare_amount",
    "a constraint": "ALTER TABLE spare.lines ADD CONSTRAINT large CHECK (id > 0) NOT VALID",
    "a constraint that is checked": "ALTER TABLE spare.lines ADD CHECK (id > -1) NOT VALID;; "
    "ALTER TABLE spare.lines VALIDATE CONSTRAINT lines_id_check",
    "a foreign key": "ALTER TABLE spare.lines ADD FOREIGN KEY (amount) REFERENCES spare.lines",
    "a trigger": "CREATE TRIGGER one BEFORE INSERT ON spare.lines FOR EACH ROW EXECUTE FUNCTION spare.fires()",
    "a trigger that is disabled": "ALTER TABLE sale_order DISABLE TRIGGER count_change",
    "a body of a function": "CREATE OR REPLACE FUNCTION spare.it() RETURNS integer LANGUAGE sql AS 'SELECT 2'",
    "a function that is dropped": "DROP FUNCTION spare.left_over()",
    "a function that is put back": "DROP FUNCTION count_change() CASCADE; CREATE FUNCTION count_change() "
    "RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "a comment": "COMMENT ON TABLE spare.lines IS 'otherwise'",
    "a comment that is gone": "COMMENT ON COLUMN res_partner.ref IS NULL",
    "a privilege": "GRANT UPDATE ON spare.lines TO {other}",
    "a privilege on a column": "GRANT UPDATE (amount) ON spare.lines TO {other}",
    "a privilege that is gone": "REVOKE SELECT ON spare.lines FROM PUBLIC",
    "a privilege on a schema": "GRANT USAGE ON SCHEMA spare TO {other}",
    "a default privilege": "ALTER DEFAULT PRIVILEGES IN SCHEMA spare GRANT SELECT ON TABLES TO {other}",
    "a default privilege that is gone": "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM PUBLIC",
    "row security": "ALTER TABLE spare.lines ENABLE ROW LEVEL SECURITY",
    "a policy": "ALTER POLICY positive ON spare.lines USING (amount > 1)",
    "a policy's role": "ALTER POLICY positive ON spare.lines TO {other}",
    "a policy that is dropped": "DROP POLICY also ON spare.lines",
    "a label of an enumeration": "ALTER TYPE spare.state ADD VALUE 'c'",
    "a label that is renamed": "ALTER TYPE spare.state RENAME VALUE 'a' TO 'z'",
    "a domain": "CREATE DOMAIN spare.small AS integer CHECK (VALUE < 10)",
    "a domain that is dropped": "DROP DOMAIN spare.tiny",
    "a range": "CREATE TYPE spare.hours AS RANGE (subtype = timestamptz)",
    "a schema's name": "ALTER SCHEMA spare RENAME TO spared;; ALTER SCHEMA spared RENAME TO spare",
    "a schema": "CREATE SCHEMA another",
    "a sequence": "CREATE SEQUENCE spare.three",
    "how a sequence counts": "ALTER SEQUENCE spare.one INCREMENT 3",
    "whose a sequence is": "ALTER SEQUENCE spare.two OWNED BY spare.lines.amount",
    "a sequence that is dropped": "DROP SEQUENCE spare.unused",
    "a view": "CREATE OR REPLACE VIEW spare.seen AS SELECT id FROM spare.lines WHERE id > 1",
    "an option of a view": "ALTER VIEW spare.seen SET (security_barrier)",
    "a rule": "CREATE RULE one AS ON DELETE TO spare.lines DO INSTEAD NOTHING",
    "a rule that is dropped": "DROP RULE aside ON spare.lines",
    "a materialized view": "CREATE MATERIALIZED VIEW spare.counted AS SELECT count(*) FROM spare.lines",
    "a materialized view's name": "ALTER MATERIALIZED VIEW spare.named RENAME TO renamed",
    "a materialized view's option": "ALTER MATERIALIZED VIEW spare.filled SET (fillfactor = 70)",
    "a materialized view's TOAST option": "ALTER MATERIALIZED VIEW spare.filled SET (toast.autovacuum_enabled = off)",
    "a materialized view that is emptied": "REFRESH MATERIALIZED VIEW spare.emptied WITH NO DATA",
    "a privilege on a materialized view": "GRANT SELECT ON spare.filled TO {other}",
    "an index of a materialized view": "CREATE INDEX ON spare.filled (line)",
    "an option of its index": "ALTER INDEX spare.spare_filled SET (fillfactor = 70)",
    "an index of a materialized view that is renamed": "ALTER INDEX spare.spare_named RENAME TO spare_renamed",
    "an index of a materialized view that is dropped": "DROP INDEX spare.spare_unfilled",
    "a column of a materialized view": "ALTER MATERIALIZED VIEW spare.filled RENAME line TO lines",
    "extended statistics": "CREATE STATISTICS spare.both ON amount, line FROM spare.lines",
    "extended statistics that are dropped": "DROP STATISTICS spare.unread",
    "what is kept for statistics": "ALTER TABLE spare.lines ALTER line SET STATISTICS 7",
    "a replica identity": "ALTER TABLE spare.lines REPLICA IDENTITY FULL",
    "a parent": "CREATE TABLE spare.child () INHERITS (spare.lines)",
    "a partition that is detached": "ALTER TABLE mail_message DETACH PARTITION mail_message_2024",
    "a partition that is attached": "ALTER TABLE mail_message ATTACH PARTITION spare.next "
    "FOR VALUES FROM (2030) TO (2031)",
    "an aggregate": "CREATE AGGREGATE spare.total (integer) (sfunc = int4pl, stype = integer)",
    "an operator": "CREATE OPERATOR spare.<+> (leftarg = integer, rightarg = integer, function = int4pl)",
    "a cast": "CREATE CAST (spare.state AS integer) WITH INOUT",
    "a collation": "CREATE COLLATION spare.plain (locale = 'C')",
    "a conversion": "CREATE CONVERSION spare.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "a text search": "CREATE TEXT SEARCH CONFIGURATION spare.other (copy = simple)",
    "a dictionary of a text search": "ALTER TEXT SEARCH CONFIGURATION spare.search "
    "ALTER MAPPING FOR word WITH english_stem",
    "a text search that is dropped": "DROP TEXT SEARCH CONFIGURATION spare.lost",
    "an extension": "CREATE EXTENSION hstore",
    "an extension that is dropped": "DROP EXTENSION unaccent",
    "another schema": "ALTER TABLE spare.lines SET SCHEMA public;; ALTER TABLE public.lines SET SCHEMA spare",
    "a table that is emptied": "TRUNCATE spare.lines",
    "a table that is rewritten": "VACUUM FULL spare.lines",
    "large objects": "SELECT lo_from_bytea(0, 'x')",
}
"""What changes a definition, or may."""

BY_ADMINISTRATOR = {
    "an owner": "ALTER TABLE spare.lines OWNER TO {other}",
    "an owner of a function": "ALTER FUNCTION spare.it() OWNER TO {other}",
    "an owner of a materialized view": "ALTER MATERIALIZED VIEW spare.filled OWNER TO {other}",
    "an operator class": "CREATE OPERATOR CLASS spare.plain FOR TYPE integer USING btree AS OPERATOR 1 <",
    "a language": "CREATE TRUSTED LANGUAGE spoken HANDLER plpgsql_call_handler",
    "a privilege on what the server brings along": "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {other}",
    "a foreign server": "CREATE SERVER somewhere FOREIGN DATA WRAPPER nothing",
    "a login elsewhere": "CREATE USER MAPPING FOR {other} SERVER nowhere",
    "an event trigger": "CREATE EVENT TRIGGER more ON ddl_command_end EXECUTE FUNCTION spare.on_event()",
    "an event trigger that is disabled": "ALTER EVENT TRIGGER rings DISABLE",
    "an event trigger that is dropped": "DROP EVENT TRIGGER silent",
    "an access method": "CREATE ACCESS METHOD stored TYPE TABLE HANDLER heap_tableam_handler",
    "a publication": "CREATE PUBLICATION told FOR TABLE spare.published",
    "a security of a function": "ALTER FUNCTION spare.it() LEAKPROOF",
}

HARMLESS = {
    "rows": "INSERT INTO spare.quiet (line) SELECT repeat('x', 5000) FROM generate_series(1, 200);; "
    "UPDATE spare.quiet SET line = 'y' WHERE id < 9;; DELETE FROM spare.quiet WHERE id < 5",
    "numbers from a sequence": "SELECT nextval('spare.quiet_id_seq')",
    "where a sequence stands": "SELECT setval('spare.quiet_id_seq', 5000)",
    "ANALYZE": "ANALYZE",
    "VACUUM": "VACUUM (FREEZE) spare.quiet",
    "temporary tables that come and go": "CREATE TEMP TABLE brief AS SELECT 1 AS one;; CREATE INDEX ON brief (one);; "
    "DROP TABLE brief",
    "a temporary table until the session ends": "CREATE TEMP TABLE longer (id serial PRIMARY KEY, "
    "line text DEFAULT 'x')",
    "a transaction that is rolled back": "BEGIN; CREATE TABLE spare.never (); ROLLBACK",
    "a materialized view that is filled again": "REFRESH MATERIALIZED VIEW spare.quietly",
    "the same beside its readers": "REFRESH MATERIALIZED VIEW CONCURRENTLY spare.quietly",
}

BY_ADMINISTRATOR_HARMLESS = {
    "VACUUM of everything": "VACUUM (FREEZE, ANALYZE)",
    "what the fence does": "ALTER DATABASE {database} OWNER TO CURRENT_USER;; ALTER ROLE {tenant} NOLOGIN;; "
    "REVOKE ALL ON DATABASE {database} FROM PUBLIC;; ALTER DATABASE {database} CONNECTION LIMIT 0;; "
    "ALTER DATABASE {database} CONNECTION LIMIT -1;; ALTER ROLE {tenant} LOGIN;; "
    "ALTER DATABASE {database} OWNER TO {tenant}",
    "a neighbour": "CREATE ROLE a_neighbour;; CREATE DATABASE a_neighbours OWNER a_neighbour;; "
    "DROP DATABASE a_neighbours;; DROP ROLE a_neighbour",
    "a setting": "ALTER DATABASE {database} SET work_mem = '5MB'",
    "a comment on the database": "COMMENT ON DATABASE {database} IS 'x'",
}

QUIET = """
CREATE TABLE IF NOT EXISTS spare.quiet (id serial PRIMARY KEY, line text);
CREATE MATERIALIZED VIEW IF NOT EXISTS spare.quietly AS SELECT id, line FROM spare.quiet;
CREATE UNIQUE INDEX IF NOT EXISTS spare_quietly ON spare.quietly (id);
CREATE INDEX IF NOT EXISTS spare_line ON spare.quietly (line)
"""


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_changes_no_definition_leaves_it(signed: Signed, name: str) -> None:
    await signed.execute(QUIET)
    assert not await signed.changes(HARMLESS[name])


@pytest.mark.parametrize("name", BY_ADMINISTRATOR_HARMLESS)
async def test_what_the_administrator_does_to_the_server_leaves_it(signed: Signed, name: str) -> None:
    statements = (
        BY_ADMINISTRATOR_HARMLESS[name]
        .replace("{database}", quoted(signed.tenant.database))
        .replace("{tenant}", quoted(signed.tenant.role))
    )
    assert not await signed.changes(statements, as_tenant=False)


@pytest.mark.parametrize("name", DEFINED)
async def test_whatever_changes_a_definition_changes_it(signed: Signed, name: str) -> None:
    assert await signed.changes(DEFINED[name])


@pytest.mark.parametrize("name", BY_ADMINISTRATOR)
async def test_so_does_what_only_an_administrator_may_do(signed: Signed, name: str) -> None:
    assert await signed.changes(BY_ADMINISTRATOR[name], as_tenant=False)


async def test_so_does_another_name_of_a_role_that_has_something(signed: Signed) -> None:
    await signed.execute("CREATE TABLE spare.granted (); GRANT SELECT ON spare.granted TO {other}")
    again = f"{signed.other}_again"
    assert await signed.changes(f"ALTER ROLE {{other}} RENAME TO {again}", as_tenant=False)
    assert await signed.changes(f"ALTER ROLE {again} SUPERUSER", as_tenant=False)
    await signed.execute(
        f"ALTER ROLE {again} NOSUPERUSER;; ALTER ROLE {again} RENAME TO {{other}}", as_tenant=False
    )


async def test_a_snapshot_has_the_signature_of_its_time(signed: Signed) -> None:
    before = await signed.signature()
    async with signed.cluster.connect(signed.tenant.database) as holder:
        async with holder.transaction(isolation="repeatable_read"):
            snapshot = str(await holder.fetchval("SELECT pg_export_snapshot()"))
            await signed.execute("CREATE TABLE spare.later ()")
            assert await signed.signature(snapshot) == before
            assert await signed.signature() != before
        with pytest.raises(Conflict, match="gone"):
            await signed.signature(snapshot)


async def test_every_catalog_with_definitions_is_in_it(signed: Signed) -> None:
    """All that a newer release may bring is; what is left out is named here."""
    async with signed.cluster.connect(signed.tenant.database) as connection:
        there = {row[0] for row in await connection.fetch(CATALOGS)}
        read = {row["name"] for row in await connection.fetch(str(administrator("signature")["catalogs"]))}
    assert there - read == {"pg_statistic", "pg_statistic_ext_data", "pg_largeobject", "pg_subscription_rel"}
    assert read - there == set()
    assert {"pg_class", "pg_attribute", "pg_proc", "pg_description", "pg_default_acl", "pg_init_privs"} < read


CATALOGS = (
    "SELECT relname::text FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' "
    "AND NOT relisshared"
)


async def test_a_database_that_is_not_there_is_named(signed: Signed) -> None:
    with pytest.raises(NotFound, match="no_such"):
        await PostgresVerifier().signature(server_of(signed.cluster, "pool-1", "shared"), "no_such")
