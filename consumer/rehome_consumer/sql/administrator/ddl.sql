-- What a superuser's session of ours changes, as statements with places: {place} is an identifier or a literal,
-- quoted by `rehome_consumer.adapters.postgres.names`, or our own words. None of them runs what a tenant made: they change
-- rows of catalogues. Extensions are made in a database that holds nothing else yet.

-- name: let_login
-- A role may log in.
ALTER ROLE {role} LOGIN

-- name: refuse_login
-- No new session of a role.
ALTER ROLE {role} NOLOGIN

-- name: rename_role
-- Another name for a role.
ALTER ROLE {role} RENAME TO {name}

-- name: drop_role
-- A role is gone.
DROP ROLE IF EXISTS {role}

-- name: comment_role
-- A remark about a role.
COMMENT ON ROLE {role} IS {text}

-- name: make_tenant
-- A tenant's role: ordinary, and closed until its database is verified.
CREATE ROLE {role} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    CONNECTION LIMIT -1 VALID UNTIL 'infinity' PASSWORD {verifier}

-- name: correct_tenant
-- The same for one that is there.
ALTER ROLE {role} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    CONNECTION LIMIT -1 VALID UNTIL 'infinity' PASSWORD {verifier}

-- name: make_other
-- A role that a tenant's privileges name, without login.
CREATE ROLE {role} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS

-- name: make_short_lived
-- A login with a tenant's rights: {row_security} is BYPASSRLS or NOBYPASSRLS, {until} an instant.
CREATE ROLE {role} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION {row_security}
    CONNECTION LIMIT {sessions} VALID UNTIL {until} PASSWORD {verifier}

-- name: lend
-- A role's rights for another role.
GRANT {role} TO {member}

-- name: let_use_schema
-- A schema may be used by a role.
GRANT USAGE ON SCHEMA {schema} TO {role}

-- name: reassign_owned
-- What a role owns in this database, and databases that it owns, become another's.
REASSIGN OWNED BY {role} TO {heir}

-- name: drop_owned
-- What a role was granted in this database and on databases, and default privileges of its own.
DROP OWNED BY {role}

-- name: own_database
-- A database's owner.
ALTER DATABASE {database} OWNER TO {role}

-- name: limit_database
-- How many sessions of ordinary roles a database takes; -1: any number, 0: none.
ALTER DATABASE {database} CONNECTION LIMIT {sessions}

-- name: close_database
-- One grantee (PUBLIC, or a role) has no privilege on a database any more, nor has whom it passed one on to.
REVOKE ALL ON DATABASE {database} FROM {grantee} CASCADE

-- name: revoke_on_database
-- One privilege on a database less.
REVOKE {privilege} ON DATABASE {database} FROM {grantee} CASCADE

-- name: grant_on_database
-- One privilege on a database; {option} is empty or WITH GRANT OPTION.
GRANT {privilege} ON DATABASE {database} TO {grantee} {option}

-- name: as_role
-- The next statements are a role's, until the end of the transaction or `as_ourselves`.
SET LOCAL ROLE {role}

-- name: as_ourselves
-- The next statements are the session's own again.
RESET ROLE

-- name: create_database
-- An empty database; {clauses} say owner, encoding and locale.
CREATE DATABASE {database} {clauses}

-- name: rename_database
-- Another name for a database; refused while anybody is connected to it.
ALTER DATABASE {database} RENAME TO {name}

-- name: no_template
-- A database is not for CREATE DATABASE to copy, and can be dropped.
ALTER DATABASE {database} IS_TEMPLATE false

-- name: drop_database
-- A database and the sessions on it are gone.
DROP DATABASE IF EXISTS {database} WITH (FORCE)

-- name: drop_empty_handed
-- A database is gone; refused while anybody is connected to it.
DROP DATABASE {database}

-- name: comment_database
-- A database's comment, which holds our mark.
COMMENT ON DATABASE {database} IS {text}

-- name: set_for_database
-- A setting of every session on a database; {values} are literals. It is not applied here, only stored.
ALTER DATABASE {database} SET {variable} TO {values}

-- name: set_for_role_in_database
-- A setting of one role's sessions on a database.
ALTER ROLE {role} IN DATABASE {database} SET {variable} TO {values}

-- name: own_public_schema
-- Schema public of a database that was just made.
ALTER SCHEMA public OWNER TO {role}

-- name: create_schema
-- A schema for an extension.
CREATE SCHEMA {schema} AUTHORIZATION {role}

-- name: create_extension
-- An extension; {clauses} say version and schema.
CREATE EXTENSION IF NOT EXISTS {extension} {clauses}

-- name: analyze_catalogue
-- Statistics of tables of the system's own, which no tenant can hang anything on.
ANALYZE {tables}
