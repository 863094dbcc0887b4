-- What the reconciler reads from PostgreSQL servers, as their administrator. Nothing here changes anything.
-- Whether a database is closed, and who is connected, is asked in databases.sql.

-- name: size_and_comment
-- Bytes and comment of a database, if it exists.
SELECT pg_catalog.pg_database_size(oid) AS bytes, pg_catalog.textsend(pg_catalog.shobj_description(oid, 'pg_database')) AS comment
FROM pg_catalog.pg_database WHERE datname = $1;

-- name: sizes
-- Bytes of those of these databases that are there.
SELECT datname::pg_catalog.text AS name, pg_catalog.pg_database_size(oid) AS bytes
FROM pg_catalog.pg_database WHERE datname::pg_catalog.text = ANY ($1::pg_catalog.text[]);

-- name: active_sessions
-- Clients whose statement runs at this moment, rehome's excepted: those of this login under rehome's name, and of
-- short-lived roles. The name alone proves nothing: any client can choose it.
SELECT pg_catalog.count(*)
FROM pg_catalog.pg_stat_activity
WHERE state IN ('active', 'fastpath function call') AND backend_type = 'client backend'
  AND pid <> pg_catalog.pg_backend_pid()
  AND NOT (usename = session_user AND application_name LIKE 'rehome:%')
  AND NOT coalesce(usename ~ '^rehome_[0-9a-f]{32}_[a-z]+$', false);

-- name: databases
-- Databases with a comment by rehome, or a name that only rehome gives.
SELECT datname::pg_catalog.text AS name, pg_catalog.textsend(pg_catalog.shobj_description(oid, 'pg_database')) AS comment FROM pg_catalog.pg_database
WHERE pg_catalog.shobj_description(oid, 'pg_database') LIKE '%"rehome"%'
   OR datname ~ '^rehome_making_[0-9a-f]{32}$'
ORDER BY datname;

-- name: sessions
-- Sessions that work for a migration: of this login under a migration's name, and of short-lived roles.
SELECT found.migration, pg_catalog.count(*) AS count, pg_catalog.min(found.since) AS since
FROM (
    SELECT CASE WHEN usename = session_user THEN pg_catalog.substr(application_name, 8)
                ELSE pg_catalog.substr(usename::pg_catalog.text, 8, 32) END AS migration,
           backend_start AS since
    FROM pg_catalog.pg_stat_activity
    WHERE pid <> pg_catalog.pg_backend_pid()
      AND ((usename = session_user AND application_name ~ '^rehome:[0-9a-f]{8}-')
           OR (usename ~ '^rehome_[0-9a-f]{32}_[a-z]+$' AND usename !~ '_(sync|apply)$'))
) AS found
GROUP BY found.migration;

-- name: roles
-- Migrations that have short-lived roles, known by their names.
SELECT DISTINCT pg_catalog.substr(rolname::pg_catalog.text, 8, 32) AS migration FROM pg_catalog.pg_roles
WHERE rolname ~ '^rehome_[0-9a-f]{32}(_[a-z]+)?$' AND rolname !~ '_(sync|apply)$' ORDER BY 1;

-- name: followed
-- Migrations that have something by which a copy follows its source: a role, a slot, a subscription. Publications are in
-- their databases; the role is made before them and dropped after them.
SELECT pg_catalog.substr(found.name::pg_catalog.text, 8, 32) AS migration
FROM (SELECT rolname AS name FROM pg_catalog.pg_roles
      WHERE rolname ~ '^rehome_[0-9a-f]{32}_[a-z]+$' AND rolname ~ '_(sync|apply)$'
      UNION SELECT slot_name FROM pg_catalog.pg_replication_slots WHERE slot_name ~ '^rehome_[0-9a-f]{32}(_witness)?$'
      UNION SELECT subname FROM pg_catalog.pg_subscription WHERE subname ~ '^rehome_[0-9a-f]{32}$') AS found
GROUP BY 1 ORDER BY 1;

-- name: slots
-- Slots that keep WAL for copies that follow: bytes that are kept, and that the copy has not confirmed (null: of a witness).
SELECT pg_catalog.substr(s.slot_name::pg_catalog.text, 8, 32) AS migration,
       coalesce(pg_catalog.pg_wal_lsn_diff(here.lsn, s.restart_lsn), 0)::pg_catalog.int8 AS retained,
       CASE WHEN s.slot_name !~ '_witness$'
            THEN coalesce(pg_catalog.pg_wal_lsn_diff(here.lsn, s.confirmed_flush_lsn), 0)::pg_catalog.int8 END AS behind
FROM pg_catalog.pg_replication_slots AS s, (
    SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                ELSE pg_catalog.pg_current_wal_lsn() END AS lsn) AS here
WHERE s.slot_name ~ '^rehome_[0-9a-f]{32}(_witness)?$' ORDER BY s.slot_name;

-- name: rehearsal_marks
-- Marks of rehearsals without a migration: roles without login, and their comments.
SELECT rolname::pg_catalog.text AS name, pg_catalog.textsend(pg_catalog.shobj_description(oid, 'pg_authid')) AS comment FROM pg_catalog.pg_roles
WHERE rolname ~ '^rehearsal_mark_[0-9a-f]{32}$' AND NOT rolcanlogin ORDER BY 1;

-- name: owned
-- Databases that a role owns, and whether it has any session.
SELECT ARRAY(SELECT datname::pg_catalog.text FROM pg_catalog.pg_database WHERE datdba = r.oid ORDER BY datname) AS databases,
       EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS a WHERE a.usesysid = r.oid) AS connected,
       EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m WHERE m.roleid = r.oid) AS has_members,
       rolcanlogin AS can_login, rolsuper AS superuser
FROM pg_catalog.pg_roles AS r WHERE rolname = $1;
