-- Servers, databases, roles and sessions, as the administrator sees them. PostgreSQL 13 and newer; columns
-- that only some versions have are read through to_jsonb, which gives NULL where they are missing.

-- name: server
-- Version, readiness for logical replication, and whether our login may do what a move needs.
SELECT current_setting('server_version_num')::int AS version,
       current_setting('wal_level') AS wal_level,
       (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) AS superuser;

-- name: installable
-- Extensions that could be created, with each version that could be asked for.
SELECT name::text, version FROM pg_available_extension_versions;

-- name: database
-- One database, by name.
SELECT d.oid,
       pg_get_userbyid(d.datdba)::text AS owner,
       pg_encoding_to_char(d.encoding)::text AS encoding,
       d.datcollate::text AS collation,
       d.datctype::text AS ctype,
       coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') AS provider,
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS locale,
       to_jsonb(d) ->> 'datcollversion' AS collation_version,
       d.datconnlimit AS connection_limit,
       pg_database_size(d.oid) AS bytes
FROM pg_database AS d WHERE d.datname = $1;

-- name: database_acl
-- Who may do what with a database, if that was ever said: grantee ('' for PUBLIC), privilege, grantable.
SELECT CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END AS grantee,
       a.privilege_type::text AS privilege,
       a.is_grantable AS grantable
FROM pg_database AS d, aclexplode(d.datacl) AS a WHERE d.oid = $1
ORDER BY 1, 2;

-- name: database_settings
-- ALTER DATABASE SET and ALTER ROLE IN DATABASE SET: role ('' for all) and 'name=value'. What ALTER ROLE SET
-- says of the owner everywhere counts as said of it in this database, unless that says otherwise.
SELECT DISTINCT ON (role, split_part(setting, '=', 1)) role, setting
FROM (
    SELECT CASE s.setrole WHEN 0 THEN '' ELSE pg_get_userbyid(s.setrole)::text END AS role,
           s.setdatabase, unnest(s.setconfig) AS setting
    FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = $1
    WHERE s.setdatabase = d.oid OR (s.setdatabase = 0 AND s.setrole = d.datdba)
) AS found
ORDER BY role, split_part(setting, '=', 1), setdatabase DESC;

-- name: grantees
-- Roles that own, may do or are named by something in a database; its owner and built-in roles excepted.
SELECT DISTINCT r.rolname::text AS name
FROM (
    SELECT s.refobjid AS role FROM pg_shdepend AS s
    WHERE s.refclassid = 'pg_authid'::regclass
      AND (s.dbid = $1 OR (s.classid = 'pg_database'::regclass AND s.objid = $1))
    UNION ALL
    SELECT a.grantee FROM pg_database AS d, aclexplode(d.datacl) AS a WHERE d.oid = $1
    UNION ALL
    SELECT s.setrole FROM pg_db_role_setting AS s WHERE s.setdatabase = $1
) AS named JOIN pg_roles AS r ON r.oid = named.role
WHERE r.rolname !~ '^pg_' AND r.oid <> (SELECT datdba FROM pg_database WHERE oid = $1)
ORDER BY 1;

-- name: contents
-- What decides which ways of copying this database there are; run inside it.
SELECT (SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u') AS unlogged_tables,
       (SELECT count(*) FROM pg_largeobject_metadata) AS large_objects;

-- name: extensions
-- Extensions and their versions; run inside the database.
SELECT extname::text AS name, extversion AS version FROM pg_extension ORDER BY oid;

-- name: immovable
-- What an ordinary role cannot own or what would act from its new place: kind and name; run inside the database.
SELECT kind, name FROM (
    SELECT 'event trigger' AS kind, evtname::text AS name, 'pg_event_trigger'::regclass AS class, oid
    FROM pg_event_trigger
    UNION ALL
    SELECT 'subscription', subname::text, 'pg_subscription'::regclass, oid FROM pg_subscription
    WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL
    SELECT 'foreign-data wrapper', fdwname::text, 'pg_foreign_data_wrapper'::regclass, oid
    FROM pg_foreign_data_wrapper
    UNION ALL
    SELECT 'foreign server', srvname::text, 'pg_foreign_server'::regclass, oid FROM pg_foreign_server
    UNION ALL
    SELECT 'function in a language that is not trusted', p.oid::regprocedure::text, 'pg_proc'::regclass, p.oid
    FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
    WHERE p.oid >= 16384 AND p.prokind <> 'a' AND NOT l.lanpltrusted
    UNION ALL
    SELECT 'leakproof function', oid::regprocedure::text, 'pg_proc'::regclass, oid FROM pg_proc
    WHERE oid >= 16384 AND proleakproof
    UNION ALL
    SELECT 'base type', oid::regtype::text, 'pg_type'::regclass, oid FROM pg_type
    WHERE oid >= 16384 AND typtype = 'b' AND typelem = 0
    UNION ALL
    SELECT 'operator class', opcname::text, 'pg_opclass'::regclass, oid FROM pg_opclass WHERE oid >= 16384
    UNION ALL
    SELECT 'access method', amname::text, 'pg_am'::regclass, oid FROM pg_am WHERE oid >= 16384
    UNION ALL
    SELECT 'text search parser', prsname::text, 'pg_ts_parser'::regclass, oid FROM pg_ts_parser
    WHERE oid >= 16384
    UNION ALL
    SELECT 'text search template', tmplname::text, 'pg_ts_template'::regclass, oid FROM pg_ts_template
    WHERE oid >= 16384
    UNION ALL
    SELECT 'transform', oid::text, 'pg_transform'::regclass, oid FROM pg_transform WHERE oid >= 16384
    UNION ALL
    SELECT 'cast without a function', castsource::regtype || ' as ' || casttarget::regtype,
           'pg_cast'::regclass, oid
    FROM pg_cast WHERE oid >= 16384 AND castmethod = 'b'
    UNION ALL
    SELECT 'security label of provider', provider, 'pg_seclabel'::regclass, 0 FROM pg_seclabel
) AS found
WHERE NOT EXISTS (
    SELECT FROM pg_depend AS d
    WHERE d.classid = found.class AND d.objid = found.oid AND d.deptype IN ('e', 'i')  -- i: a range's constructors
)
ORDER BY kind, name LIMIT 20;

-- name: role
-- What a role may do.
SELECT rolname::text AS name, rolsuper AS superuser, rolcanlogin AS can_login FROM pg_roles WHERE rolname = $1;

-- name: roles_commented
-- Roles that carry a comment.
SELECT rolname::text AS name FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = $1;

-- name: databases_of
-- Databases that a role owns, with their comments.
SELECT d.datname::text AS name, shobj_description(d.oid, 'pg_database') AS comment
FROM pg_database AS d JOIN pg_roles AS r ON r.oid = d.datdba
WHERE r.rolname = $1 ORDER BY 1;

-- name: lock_role
-- One change at a time to a role and its databases; ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('rehome.role.' || $1::text, 0));

-- name: quiet
-- Keep the next statements, which hold a password's verifier, out of the server's log; for one transaction.
SELECT set_config('log_statement', 'none', true),
       set_config('log_min_duration_statement', '-1', true),
       set_config('log_min_error_statement', 'panic', true);

-- name: comment
-- A database's comment; no row when there is no such database.
SELECT shobj_description(oid, 'pg_database') AS comment FROM pg_database WHERE datname = $1;

-- name: fence_state
-- How a database and a role are: connection limit, may log in.
SELECT (SELECT datconnlimit FROM pg_database WHERE datname = $1) AS connection_limit,
       (SELECT rolcanlogin FROM pg_roles WHERE rolname = $2) AS can_login,
       (SELECT rolsuper FROM pg_roles WHERE rolname = $2) AS superuser;

-- name: prepared
-- Transactions of a database that wait for COMMIT PREPARED: their rows are in no dump.
SELECT gid, owner::text FROM pg_prepared_xacts WHERE database = $1 ORDER BY prepared LIMIT 10;

-- name: entering
-- Sessions that are just being opened on a database. They hold this lock from before they look at its
-- connection limit until after they appear in pg_stat_activity (source: InitPostgres, postinit.c).
SELECT l.pid FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.objid
WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND l.mode = 'RowExclusiveLock'
  AND d.datname = $1 AND l.pid <> pg_backend_pid();

-- name: tenants_sessions
-- Sessions on a database, ours excepted, and of a role on any database. Odoo listens on database postgres.
SELECT pid, usename::text AS user, application_name AS application, datname::text AS database, state
FROM pg_stat_activity
WHERE (datname = $1 OR usename = $2)
  AND pid <> pg_backend_pid()
  AND backend_type NOT IN ('autovacuum worker', 'walsender')
  AND NOT (usename = session_user AND application_name LIKE 'rehome:%')
ORDER BY backend_start;

-- name: sessions_on
-- Every session on a database but this one.
SELECT pid, usename::text AS user, application_name AS application, datname::text AS database, state
FROM pg_stat_activity
WHERE datname = $1 AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'
ORDER BY backend_start;

-- name: sessions_named
-- Every session of an application name but this one.
SELECT pid, usename::text AS user, application_name AS application, datname::text AS database, state
FROM pg_stat_activity
WHERE application_name = $1 AND pid <> pg_backend_pid()
ORDER BY backend_start;

-- name: terminate
-- Ask sessions to end.
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM unnest($1::int[]) AS pid;
