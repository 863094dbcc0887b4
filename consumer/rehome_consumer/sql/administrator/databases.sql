-- Servers, databases, roles and sessions, read by the administrator. PostgreSQL 14 and newer; columns that only some
-- versions have are read through to_jsonb, which gives NULL where they are missing.
--
-- Short-lived roles are known by their names, '^rehome_[0-9a-f]{32}_[a-z]+$' (see `short_lived_roles.prefix`): no tenant
-- can create a role. The names of rehome's own sessions begin with 'rehome:'.

-- name: server
-- Version, whether it offers TLS, whether it is a standby, and whether the login may do what a move needs.
SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 AS version,
       pg_catalog.current_setting('ssl')::pg_catalog.bool AS tls,
       pg_catalog.pg_is_in_recovery() AS standby,
       (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user) AS superuser;

-- name: installable
-- Extensions that could be created.
SELECT DISTINCT name::pg_catalog.text FROM pg_catalog.pg_available_extension_versions;

-- name: settings_of_database
-- Settings that have a value by ALTER DATABASE SET, or by ALTER ROLE SET in a database for this login, with the value that
-- this session has instead: sent at the start of a session, it wins over the database's. One that pg_settings does not
-- show is `role`, `seed`, which has no effect here, or an extension's that is not loaded.
SELECT named.name,
       CASE WHEN p.name IS NOT NULL THEN coalesce(p.reset_val, '') WHEN named.name = 'role' THEN 'none' ELSE '' END AS value
FROM (SELECT DISTINCT pg_catalog.split_part(c.setting, '=', 1) AS name
      FROM pg_catalog.pg_db_role_setting AS s
      JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase,
      LATERAL pg_catalog.unnest(s.setconfig) AS c(setting)
      WHERE d.datname = $1
        AND (s.setrole = 0 OR s.setrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = session_user))
     ) AS named
LEFT JOIN pg_catalog.pg_settings AS p ON pg_catalog.lower(p.name) = pg_catalog.lower(named.name)
WHERE p.name IS NOT NULL OR named.name = 'role' OR named.name LIKE '%.%';

-- name: settings_applied
-- Settings of this session that come from its database.
SELECT name FROM pg_catalog.pg_settings WHERE source IN ('database', 'database user') ORDER BY name;

-- name: database
-- One database, by name.
SELECT d.oid,
       pg_catalog.pg_get_userbyid(d.datdba)::pg_catalog.text AS owner,
       (SELECT rolsuper FROM pg_catalog.pg_roles AS r WHERE r.oid = d.datdba) AS owner_is_superuser,
       pg_catalog.pg_encoding_to_char(d.encoding)::pg_catalog.text AS encoding,
       d.datcollate::pg_catalog.text AS collation,
       d.datctype::pg_catalog.text AS ctype,
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') AS provider,
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale') AS locale,
       pg_catalog.to_jsonb(d) ->> 'daticurules' AS icu_rules,
       pg_catalog.to_jsonb(d) ->> 'datcollversion' AS collation_version,
       d.datconnlimit AS connection_limit,
       pg_catalog.textsend(pg_catalog.shobj_description(d.oid, 'pg_database')) AS comment,
       pg_catalog.pg_database_size(d.oid) AS bytes
FROM pg_catalog.pg_database AS d WHERE d.datname = $1;

-- name: is_template
-- Whether there is a database of that name that is a template: it cannot be dropped.
SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1 AND datistemplate);

-- name: database_acl
-- Privileges on a database, if any were ever granted or revoked: grantee ('' for PUBLIC), privilege, grantable, grantor.
-- Those of short-lived roles are left out.
SELECT CASE a.grantee WHEN 0 THEN '' ELSE pg_catalog.pg_get_userbyid(a.grantee)::pg_catalog.text END AS grantee,
       a.privilege_type::pg_catalog.text AS privilege,
       a.is_grantable AS grantable,
       pg_catalog.pg_get_userbyid(a.grantor)::pg_catalog.text AS grantor
FROM pg_catalog.pg_database AS d, pg_catalog.aclexplode(d.datacl) AS a
WHERE d.oid = $1
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r
                  WHERE r.oid = a.grantee AND r.rolname ~ '^rehome_[0-9a-f]{32}_[a-z]+$')
ORDER BY 1, 2;

-- name: database_settings
-- ALTER DATABASE SET and ALTER ROLE IN DATABASE SET: role ('' for all) and 'name=value'. ALTER ROLE SET for the
-- tenant's role ($2) without a database counts as set in this database, unless that has another value.
SELECT DISTINCT ON (role, pg_catalog.split_part(setting, '=', 1)) role, setting
FROM (
    SELECT CASE s.setrole WHEN 0 THEN '' ELSE pg_catalog.pg_get_userbyid(s.setrole)::pg_catalog.text END AS role,
           s.setdatabase, pg_catalog.unnest(s.setconfig) AS setting
    FROM pg_catalog.pg_db_role_setting AS s
    WHERE s.setdatabase = $1
       OR (s.setdatabase = 0 AND s.setrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $2))
) AS found
ORDER BY role, pg_catalog.split_part(setting, '=', 1), setdatabase DESC;

-- name: grantees
-- Roles that own, have a privilege on, or are mentioned by something in a database; the tenant's ($2), built-in and
-- short-lived ones excepted.
SELECT DISTINCT r.rolname::pg_catalog.text AS name
FROM (
    SELECT s.refobjid AS role FROM pg_catalog.pg_shdepend AS s
    WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
      AND (s.dbid = $1 OR (s.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND s.objid = $1))
    UNION ALL
    SELECT a.grantee FROM pg_catalog.pg_database AS d, pg_catalog.aclexplode(d.datacl) AS a WHERE d.oid = $1
    UNION ALL
    SELECT s.setrole FROM pg_catalog.pg_db_role_setting AS s WHERE s.setdatabase = $1
) AS named JOIN pg_catalog.pg_roles AS r ON r.oid = named.role
WHERE r.rolname !~ '^pg_' AND r.rolname <> $2
  AND r.rolname !~ '^rehome_[0-9a-f]{32}_[a-z]+$'
ORDER BY 1;

-- name: extensions
-- Extensions and their versions; run inside the database.
SELECT extname::pg_catalog.text AS name, extversion AS version FROM pg_catalog.pg_extension ORDER BY oid;

-- name: role
-- What a role may do that reaches beyond its databases, what else it has that its new role must have too, and of which
-- roles it is a member, and which are members of it. Superusers and
-- short-lived roles are not counted as members. Neither is a member without any of the role's rights (neither INHERIT
-- nor SET): since version 16 that is who created the role without being a superuser.
SELECT rolname::pg_catalog.text AS name, rolsuper AS superuser, rolcanlogin AS can_login,
       pg_catalog.array_remove(ARRAY[
           CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
           CASE WHEN rolreplication THEN 'REPLICATION' END,
           CASE WHEN rolbypassrls THEN 'BYPASSRLS' END], NULL) AS attributes,
       rolcreatedb AS create_databases, rolinherit AS inherit, rolconnlimit AS connection_limit,
       CASE WHEN rolvaliduntil < 'infinity'
            THEN (pg_catalog.to_jsonb(pg_catalog.timezone('UTC', rolvaliduntil)) #>> '{}') || '+00' END AS valid_until,
       pg_catalog.textsend(pg_catalog.shobj_description(r.oid, 'pg_authid')) AS comment,
       ARRAY(SELECT pg_catalog.pg_get_userbyid(m.roleid)::pg_catalog.text FROM pg_catalog.pg_auth_members AS m
             WHERE m.member = r.oid ORDER BY 1) AS member_of,
       ARRAY(SELECT o.rolname::pg_catalog.text FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS o ON o.oid = m.member
             WHERE m.roleid = r.oid AND NOT o.rolsuper AND o.rolname !~ '^rehome_[0-9a-f]{32}_[a-z]+$'
               AND (coalesce(pg_catalog.to_jsonb(m) ->> 'inherit_option', 'true') = 'true'
                    OR coalesce(pg_catalog.to_jsonb(m) ->> 'set_option', 'true') = 'true')
             ORDER BY 1) AS members
FROM pg_catalog.pg_roles AS r WHERE rolname = $1;

-- name: role_elsewhere
-- What a role ($1) has outside of the databases $2: in words, one for each database and kind of tie. Settings of it for one
-- database are no dependency: they have a catalog of their own. Its privilege to
-- connect to the maintenance database is left out: Odoo listens there, and a pool may have revoked it from PUBLIC.
SELECT CASE
           WHEN s.classid = 'pg_catalog.pg_database'::pg_catalog.regclass
               THEN CASE s.deptype WHEN 'o' THEN 'owns' ELSE 'has privileges on' END || ' database '
                    || coalesce((SELECT datname::pg_catalog.text FROM pg_catalog.pg_database WHERE oid = s.objid), s.objid::pg_catalog.text)
           WHEN s.dbid <> 0
               THEN CASE s.deptype WHEN 'o' THEN 'owns' WHEN 'r' THEN 'has policies for' ELSE 'has privileges on' END
                    || ' something in database ' || coalesce(d.datname::pg_catalog.text, s.dbid::pg_catalog.text)
           ELSE 'is named by ' || s.classid::pg_catalog.regclass::pg_catalog.text
       END AS tie
FROM pg_catalog.pg_shdepend AS s LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.dbid
WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
  AND s.refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1)
  AND s.classid <> 'pg_catalog.pg_auth_members'::pg_catalog.regclass
  AND s.dbid NOT IN (SELECT oid FROM pg_catalog.pg_database WHERE datname = ANY($2::pg_catalog.text[]))
  AND NOT (s.classid = 'pg_catalog.pg_database'::pg_catalog.regclass
           AND s.objid IN (SELECT oid FROM pg_catalog.pg_database WHERE datname = ANY($2::pg_catalog.text[])))
  AND NOT (s.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND s.deptype = 'a'
           AND EXISTS (SELECT FROM pg_catalog.pg_database AS m
                       WHERE m.oid = s.objid AND m.datname = 'postgres'
                         AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(m.datacl) AS a
                                         WHERE a.grantee = s.refobjid AND a.privilege_type = 'CREATE')))
UNION
SELECT 'has settings for database ' || d.datname::pg_catalog.text
FROM pg_catalog.pg_db_role_setting AS s JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
WHERE s.setrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1)
  AND d.datname <> ALL($2::pg_catalog.text[]) AND d.datname <> 'postgres'
ORDER BY 1 LIMIT 20;

-- name: role_connected_elsewhere
-- Databases to which a role is connected, besides these ($2) and the maintenance database.
SELECT DISTINCT datname::pg_catalog.text AS name FROM pg_catalog.pg_stat_activity
WHERE usename = $1 AND datname IS NOT NULL AND datname <> 'postgres' AND datname <> ALL($2::pg_catalog.text[])
ORDER BY 1 LIMIT 20;

-- name: login_rules
-- The lines of pg_hba.conf that the server could read, in the order in which it reads them, other files' included.
SELECT r.type AS kind, r.database AS databases, r.user_name AS users, r.address, r.netmask AS mask, r.auth_method AS method
FROM pg_catalog.pg_hba_file_rules() WITH ORDINALITY AS r
WHERE r.error IS NULL ORDER BY r.ordinality;

-- name: own_connection
-- Where this session comes from, as the server sees it, and whether it is encrypted.
SELECT pg_catalog.host(pg_catalog.inet_client_addr()) AS address,
       (SELECT s.ssl FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS s) AS encrypted;

-- name: roles_with_comment
-- Roles with this comment.
SELECT rolname::pg_catalog.text AS name FROM pg_catalog.pg_roles
WHERE pg_catalog.textsend(pg_catalog.shobj_description(oid, 'pg_authid')) = pg_catalog.textsend($1::pg_catalog.text);

-- name: databases_owned_by
-- Databases that a role owns, with their comments.
SELECT d.datname::pg_catalog.text AS name, pg_catalog.textsend(pg_catalog.shobj_description(d.oid, 'pg_database')) AS comment
FROM pg_catalog.pg_database AS d JOIN pg_catalog.pg_roles AS r ON r.oid = d.datdba
WHERE r.rolname = $1 ORDER BY 1;

-- name: database_in_the_making
-- The name of a database that a migration, or a rehearsal, is making there; none when there is none.
SELECT datname::pg_catalog.text FROM pg_catalog.pg_database
WHERE datname ~ '__rehome_[0-9a-f]{12}-[0-9]+$' OR datname ~ '^rehome_making_[0-9a-f]{32}$' ORDER BY 1 LIMIT 1;

-- name: lock_role
-- Allow one change at a time to a role, or to a database; ends with the transaction.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('rehome.role.' || $1::pg_catalog.text, 0));

-- name: keep_out_of_log
-- Do not log the next statements, which hold a password's verifier; for one transaction.
SELECT pg_catalog.set_config('log_statement', 'none', true),
       pg_catalog.set_config('log_min_duration_statement', '-1', true),
       pg_catalog.set_config('log_min_error_statement', 'panic', true);

-- name: database_comment
-- A database's comment; no row when there is no such database.
SELECT pg_catalog.textsend(pg_catalog.shobj_description(oid, 'pg_database')) AS comment FROM pg_catalog.pg_database WHERE datname = $1;

-- name: fence_state
-- State of a database and a role: connection limit, owner, login; and whether the database is closed: no ordinary role may
-- connect, short-lived ones excepted. One row, NULL where database or role do not exist.
SELECT d.datconnlimit AS connection_limit,
       pg_catalog.pg_get_userbyid(d.datdba)::pg_catalog.text AS owner,
       (d.datacl IS NOT NULL) AS has_acl,
       d.oid AS oid,
       r.rolcanlogin AS can_login,
       r.rolsuper AS superuser,
       ((SELECT o.rolsuper FROM pg_catalog.pg_roles AS o WHERE o.oid = d.datdba)
        AND NOT EXISTS (
            SELECT FROM pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) AS a
            LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = a.grantee
            WHERE a.privilege_type = 'CONNECT'
              AND (a.grantee = 0 OR NOT (g.rolsuper OR g.rolname ~ '^rehome_[0-9a-f]{32}_[a-z]+$')))
       ) AS closed
FROM (SELECT 1) AS always
LEFT JOIN pg_catalog.pg_database AS d ON d.datname = $1
LEFT JOIN pg_catalog.pg_roles AS r ON r.rolname = $2;

-- name: grantees_on_database
-- Who has a privilege on a database besides its owner, granted or by default: '' is PUBLIC.
SELECT DISTINCT CASE a.grantee WHEN 0 THEN '' ELSE pg_catalog.pg_get_userbyid(a.grantee)::pg_catalog.text END AS grantee
FROM pg_catalog.pg_database AS d,
     pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) AS a
LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = a.grantee
WHERE d.datname = $1 AND a.grantee <> d.datdba
  AND (a.grantee = 0 OR NOT g.rolname ~ '^rehome_[0-9a-f]{32}_[a-z]+$');

-- name: role_names
-- Which of these names are roles.
SELECT rolname::pg_catalog.text AS name FROM pg_catalog.pg_roles WHERE rolname = ANY($1::pg_catalog.text[]);

-- name: prepared_transactions
-- Transactions of a database that wait for COMMIT PREPARED: no dump contains their rows.
SELECT gid, owner::pg_catalog.text FROM pg_catalog.pg_prepared_xacts WHERE database = $1 ORDER BY prepared LIMIT 10;

-- name: opening_sessions
-- Sessions that are being opened on a database. They hold this lock from before they check its connection limit and
-- privileges until after they appear in pg_stat_activity (source: InitPostgres, postinit.c).
SELECT l.pid FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_database AS d ON d.oid = l.objid
WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass
  AND l.mode = 'RowExclusiveLock' AND d.datname = $1 AND l.pid <> pg_catalog.pg_backend_pid();

-- name: tenants_sessions
-- Sessions on a database, and of a role on any database (Odoo listens on database postgres), rehome's excepted: those of
-- this login under rehome's name, and of short-lived roles. The name alone proves nothing: any client can choose it.
SELECT pid, usename::pg_catalog.text AS user, application_name AS application, datname::pg_catalog.text AS database, state,
       (backend_type <> 'client backend'
        OR coalesce((SELECT rolsuper FROM pg_catalog.pg_roles AS r WHERE r.oid = a.usesysid), false)) AS superuser
FROM pg_catalog.pg_stat_activity AS a
WHERE (datname = $1 OR usename = $2)
  AND pid <> pg_catalog.pg_backend_pid()
  AND backend_type NOT IN ('autovacuum worker', 'walsender')
  AND NOT (usename = session_user AND application_name LIKE 'rehome:%')
  AND NOT coalesce(usename ~ '^rehome_[0-9a-f]{32}_[a-z]+$', false)
ORDER BY backend_start;

-- name: sessions_on
-- Every session on a database but this one.
SELECT pid, usename::pg_catalog.text AS user, application_name AS application, datname::pg_catalog.text AS database, state
FROM pg_catalog.pg_stat_activity
WHERE datname = $1 AND pid <> pg_catalog.pg_backend_pid() AND backend_type <> 'autovacuum worker'
ORDER BY backend_start;

-- name: sessions_of_migration
-- Sessions that work for a migration, this one excepted: of this login under the migration's name ($1), and of its
-- short-lived roles, whose names begin with $2.
SELECT pid, usename::pg_catalog.text AS user, application_name AS application, datname::pg_catalog.text AS database, state
FROM pg_catalog.pg_stat_activity
WHERE pid <> pg_catalog.pg_backend_pid()
  AND ((usename = session_user AND application_name = $1)
       OR (pg_catalog.starts_with(usename::pg_catalog.text, $2::pg_catalog.text)
           AND usename !~ '_(sync|apply)$'))  -- those let a copy follow, whichever run it is
ORDER BY backend_start;

-- name: sessions_of_role
-- Every session of a role.
SELECT pid, usename::pg_catalog.text AS user, application_name AS application, datname::pg_catalog.text AS database, state
FROM pg_catalog.pg_stat_activity WHERE usename = $1 ORDER BY backend_start;

-- name: terminate
-- Ask sessions to end.
SELECT pg_catalog.count(*) FILTER (WHERE pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.unnest($1::pg_catalog.int4[]) AS pid;

-- name: seconds_from_now
-- The time $1 seconds from now, as the server writes it.
SELECT (pg_catalog.now() + pg_catalog.make_interval(secs => $1::pg_catalog.float8))::pg_catalog.text;

-- name: short_lived_role
-- A short-lived role: its verifier, and whether it has other settings than it was created with.
SELECT a.rolpassword AS verifier,
       EXISTS (
           SELECT FROM pg_catalog.pg_db_role_setting AS s
           WHERE s.setrole = a.oid AND (s.setdatabase <> 0 OR s.setconfig <> ARRAY['lc_messages=C'])
       ) AS has_settings
FROM pg_catalog.pg_authid AS a WHERE a.rolname = $1;

-- name: short_lived_names
-- Short-lived roles whose names begin with $1; those by which a copy follows its source outlive a run.
SELECT rolname::pg_catalog.text AS name FROM pg_catalog.pg_roles
WHERE pg_catalog.starts_with(rolname::pg_catalog.text, $1::pg_catalog.text) AND rolname ~ '^rehome_[0-9a-f]{32}(_[a-z]+)?$'
  AND rolname !~ '_(sync|apply)$'
ORDER BY 1;

-- name: tenant_role_of
-- The tenant's role, whose rights a short-lived role has.
SELECT pg_catalog.pg_get_userbyid(m.roleid)::pg_catalog.text AS name FROM pg_catalog.pg_auth_members AS m
WHERE m.member = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1)
  AND pg_catalog.pg_get_userbyid(m.roleid) !~ '^pg_'
ORDER BY 1 LIMIT 1;

-- name: databases_with_objects_of
-- Databases in which a role owns or was granted something.
SELECT DISTINCT d.datname::pg_catalog.text AS name
FROM pg_catalog.pg_shdepend AS s JOIN pg_catalog.pg_database AS d ON d.oid = s.dbid
WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
  AND s.refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1)
  AND d.datallowconn
ORDER BY 1;

-- name: short_lived_with_connect
-- Short-lived roles that were granted CONNECT on a database.
SELECT g.rolname::pg_catalog.text AS name
FROM pg_catalog.pg_database AS d, pg_catalog.aclexplode(d.datacl) AS a
JOIN pg_catalog.pg_roles AS g ON g.oid = a.grantee
WHERE d.datname = $1 AND a.privilege_type = 'CONNECT' AND g.rolname ~ '^rehome_[0-9a-f]{32}_[a-z]+$';

-- name: databases_with_connect
-- Databases on which a short-lived role was granted CONNECT.
SELECT d.datname::pg_catalog.text AS database
FROM pg_catalog.pg_database AS d, pg_catalog.aclexplode(d.datacl) AS a
WHERE a.grantee = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1) AND a.privilege_type = 'CONNECT'
ORDER BY 1;

-- name: reading_needs
-- What a reader with the rights of a tenant's role ($1) needs besides them; run inside the database. `bypass`: a table of
-- the tenant's hides rows from its own owner. `schemas`: those that the tenant's role may use only as the database's
-- owner, and so not while the database is fenced (public is pg_database_owner's since version 15).
SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c
               WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND c.relforcerowsecurity
                 AND pg_catalog.pg_has_role($1::pg_catalog.name, c.relowner, 'USAGE')) AS bypass,
       ARRAY(SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_namespace AS n
             WHERE pg_catalog.pg_get_userbyid(n.nspowner) = 'pg_database_owner'
               AND NOT pg_catalog.has_schema_privilege($1::pg_catalog.name, n.oid, 'USAGE')) AS schemas;

-- name: catalogue_tables
-- System tables that each database has for itself.
SELECT 'pg_catalog.' || pg_catalog.quote_ident(relname::pg_catalog.text) AS name FROM pg_catalog.pg_class
WHERE relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND relkind = 'r' AND NOT relisshared ORDER BY 1;
