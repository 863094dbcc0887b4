-- What an administrator's session changes, as statements with places: {place} is an identifier or a literal, quoted by
-- `rehome_consumer.adapters.postgres.names`, or fixed SQL. None of them runs what a tenant made: they change rows of
-- catalogues. Extensions are created in a database that holds nothing else yet.

-- name: allow_login
-- Allow a role to log in.
ALTER ROLE {role} LOGIN

-- name: forbid_login
-- Allow a role no new session.
ALTER ROLE {role} NOLOGIN

-- name: rename_role
-- Rename a role.
ALTER ROLE {role} RENAME TO {name}

-- name: drop_role
-- Drop a role, if it exists.
DROP ROLE IF EXISTS {role}

-- name: comment_role
-- Comment on a role.
COMMENT ON ROLE {role} IS {text}

-- name: create_tenant_role
-- A tenant's role: ordinary, without login until its database is promoted; {attributes} are those of its source.
CREATE ROLE {role} NOLOGIN NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS {attributes} PASSWORD {verifier}

-- name: alter_tenant_role
-- The same for a role that exists.
ALTER ROLE {role} NOLOGIN NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS {attributes} PASSWORD {verifier}

-- name: create_other_role
-- A role that the tenant's privileges mention, without login.
CREATE ROLE {role} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS

-- name: create_short_lived_role
-- A login with a tenant's rights, which is spoken to in English: {row_security} is BYPASSRLS or NOBYPASSRLS, {until} a time.
CREATE ROLE {role} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION {row_security}
    CONNECTION LIMIT {sessions} VALID UNTIL {until} PASSWORD {verifier};
ALTER ROLE {role} SET lc_messages = 'C'

-- name: grant_role
-- Give a role's rights to another role.
GRANT {role} TO {member}

-- name: grant_schema_usage
-- Let a role use a schema.
GRANT USAGE ON SCHEMA {schema} TO {role}

-- name: reassign_owned
-- Give what a role owns in this database, and databases that it owns, to another role.
REASSIGN OWNED BY {role} TO {heir}

-- name: drop_owned
-- Revoke what a role was granted in this database and on databases, and its own default privileges.
DROP OWNED BY {role}

-- name: set_database_owner
-- Change a database's owner.
ALTER DATABASE {database} OWNER TO {role}

-- name: set_connection_limit
-- How many sessions of ordinary roles a database takes; -1: any number, 0: none.
ALTER DATABASE {database} CONNECTION LIMIT {sessions}

-- name: revoke_all_on_database
-- Revoke every privilege on a database from one grantee (PUBLIC, or a role), and from those it passed one on to.
REVOKE ALL ON DATABASE {database} FROM {grantee} CASCADE

-- name: revoke_on_database
-- Revoke one privilege on a database.
REVOKE {privilege} ON DATABASE {database} FROM {grantee} CASCADE

-- name: grant_on_database
-- Grant one privilege on a database; {option} is empty or WITH GRANT OPTION.
GRANT {privilege} ON DATABASE {database} TO {grantee} {option}

-- name: set_role
-- Run the next statements as a role, until the end of the transaction or `reset_role`.
SET LOCAL ROLE {role}

-- name: reset_role
-- Run the next statements as the session's own role again.
RESET ROLE

-- name: create_database
-- Create an empty database; {clauses} are owner, encoding and locale.
CREATE DATABASE {database} {clauses}

-- name: rename_database
-- Rename a database; refused while there are connections to it.
ALTER DATABASE {database} RENAME TO {name}

-- name: unset_template
-- Make a database no template, so that it can be dropped.
ALTER DATABASE {database} IS_TEMPLATE false

-- name: drop_database
-- End the sessions on a database and drop it, if it exists.
DROP DATABASE IF EXISTS {database} WITH (FORCE)

-- name: drop_unused_database
-- Drop a database; refused while there are connections to it.
DROP DATABASE {database}

-- name: comment_database
-- Write a database's comment, which holds the ownership tag.
COMMENT ON DATABASE {database} IS {text}

-- name: set_for_database
-- Store a setting of every session on a database, without applying it here; {values} are literals.
ALTER DATABASE {database} SET {variable} TO {values}

-- name: set_for_role_in_database
-- Store a setting of one role's sessions on a database.
ALTER ROLE {role} IN DATABASE {database} SET {variable} TO {values}

-- name: set_schema_owner
-- Change a schema's owner; runs nothing, and nothing runs with the rights of a schema's owner.
ALTER SCHEMA {schema} OWNER TO {role}

-- name: create_schema
-- Create a schema for an extension.
CREATE SCHEMA {schema} AUTHORIZATION {role}

-- name: create_extension
-- Create an extension; {clauses} are version and schema.
CREATE EXTENSION IF NOT EXISTS {extension} {clauses}

-- name: analyze_catalogue
-- Collect statistics of system tables, to which a tenant can add nothing that runs.
ANALYZE {tables}

-- name: see_snapshot
-- Let the transaction that has just begun see an exported snapshot; {snapshot} is a literal.
SET TRANSACTION SNAPSHOT {snapshot}

-- name: rows_of_catalog
-- How many rows of a catalog each transaction wrote, as `signature.sql` says it of others; {label} is its name as a literal.
SELECT {label} || ' ' || c.xmin::pg_catalog.text || ' ' || pg_catalog.count(*) AS line
FROM {catalog} AS c GROUP BY c.xmin

-- name: signature
-- SHA-256 over rows of text, in whatever order they come; {rows} is a query of `signature.sql`'s.
SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(
           pg_catalog.string_agg(r.line, E'\n' ORDER BY r.line COLLATE pg_catalog."C"), 'UTF8')), 'hex')
FROM ({rows}) AS r

-- name: alter_function
-- Change how a function of an extension may be used, as it was changed on the source; {attributes} are keywords.
ALTER FUNCTION {function} {attributes}

-- name: create_sync_role
-- The login by which a target's server reads a slot: it has no rights in any database. {until} is a time.
CREATE ROLE {role} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE REPLICATION NOBYPASSRLS
    CONNECTION LIMIT 2 VALID UNTIL {until} PASSWORD NULL

-- name: set_sync_password
-- Give that login a password; {verifier} is its SCRAM verifier.
ALTER ROLE {role} VALID UNTIL {until} PASSWORD {verifier}

-- name: create_apply_role
-- The owner of a subscription: nobody can log in as it, since it has no password.
CREATE ROLE {role} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD NULL

-- name: create_publication
-- Publish tables; {tables} are their names, each with ONLY.
CREATE PUBLICATION {name} FOR TABLE {tables}

-- name: create_empty_publication
-- Publish nothing: a database without tables.
CREATE PUBLICATION {name}

-- name: lock_table
-- Let nobody read or write a table until the end of the transaction.
LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE

-- name: set_replica_identity
-- What of a changed or removed row is written to the WAL; {identity} is DEFAULT, NOTHING or FULL. Rewrites nothing.
ALTER TABLE ONLY {table} REPLICA IDENTITY {identity}

-- name: drop_publication
-- Publish them no more.
DROP PUBLICATION IF EXISTS {name}

-- name: create_witness
-- Make a slot that nobody reads while the copy follows (replication command).
CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput NOEXPORT_SNAPSHOT

-- name: create_slot
-- Make a slot whose snapshot the transaction has that has just begun (replication command).
CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput USE_SNAPSHOT

-- name: exported_snapshot
-- The name of this transaction's snapshot, for other sessions (the query of a COPY).
SELECT pg_catalog.pg_export_snapshot()

-- name: create_subscription
-- Make a subscription that does not run yet; {connection} is a literal with a password.
CREATE SUBSCRIPTION {name} CONNECTION {connection} PUBLICATION {name}
    WITH (create_slot = false, slot_name = {slot}, copy_data = false, enabled = false, streaming = on,
          disable_on_error = true)

-- name: set_subscription_owner
-- Give a subscription to an ordinary role.
ALTER SUBSCRIPTION {name} OWNER TO {role}

-- name: enable_subscription
-- Let it run.
ALTER SUBSCRIPTION {name} ENABLE

-- name: disable_subscription
-- Let it run no more.
ALTER SUBSCRIPTION {name} DISABLE

-- name: forget_slot
-- Let dropping a subscription not drop its slot, for which it would connect to the source.
ALTER SUBSCRIPTION {name} SET (slot_name = NONE)

-- name: drop_subscription
-- Drop a subscription.
DROP SUBSCRIPTION {name}
