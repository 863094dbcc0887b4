-- What the reconciler asks of PostgreSQL servers, as their administrator. Reads, but for what is named drop_*.

-- name: side
-- How a tenant's database and role are on a server; NULL where one of them is not there.
SELECT d.datconnlimit AS connection_limit,
       pg_database_size(d.oid) AS bytes,
       shobj_description(d.oid, 'pg_database') AS comment,
       (SELECT rolcanlogin FROM pg_roles WHERE rolname = $2) AS can_login,
       (SELECT count(*) FROM pg_stat_activity AS a
        WHERE (a.datname = $1 OR a.usename = $2) AND a.pid <> pg_backend_pid()
          AND a.backend_type NOT IN ('autovacuum worker', 'walsender')
          AND NOT (a.usename = session_user AND a.application_name LIKE 'rehome:%')) AS sessions
FROM (SELECT 1) AS always LEFT JOIN pg_database AS d ON d.datname = $1;

-- name: databases
-- Databases that carry a comment of ours, or a name that only we give.
SELECT datname::text AS name, shobj_description(oid, 'pg_database') AS comment FROM pg_database
WHERE shobj_description(oid, 'pg_database') LIKE '%"rehome"%' OR datname ~ '^rehome_making_[0-9a-f]{32}$'
ORDER BY datname;

-- name: sessions
-- Sessions that work for a migration, by the name that they carry.
SELECT substr(application_name, 8) AS migration, count(*) AS count, min(backend_start) AS since
FROM pg_stat_activity
WHERE application_name ~ '^rehome:[0-9a-f]{8}-' AND pid <> pg_backend_pid()
GROUP BY application_name;

-- name: roles
-- Roles that exist while data is restored, by the name that only we give.
SELECT rolname::text AS name FROM pg_roles WHERE rolname ~ '^rehome_[0-9a-f]{32}$' ORDER BY rolname;

-- name: slots
-- Replication slots with a name of ours, and the bytes of log that each holds back.
SELECT slot_name::text AS name, active,
       CASE WHEN pg_is_in_recovery() THEN NULL
            ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint END AS kept_bytes
FROM pg_replication_slots WHERE slot_name ~ '^rehome_' ORDER BY slot_name;

-- name: drop_slot
-- Drop a replication slot, if it is there and nobody uses it.
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active;

-- name: owned
-- Databases that a role owns, and whether it has any session.
SELECT ARRAY(SELECT datname::text FROM pg_database WHERE datdba = r.oid ORDER BY datname) AS databases,
       EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.usesysid = r.oid) AS connected,
       EXISTS (SELECT FROM pg_auth_members AS m WHERE m.roleid = r.oid) AS has_members,
       rolcanlogin AS can_login, rolsuper AS superuser
FROM pg_roles AS r WHERE rolname = $1;
