-- What the reconciler asks of PostgreSQL servers, as their administrator. All of it only reads.

-- name: database_state
-- How a tenant's database and role are on a server; NULL where one of them is not there.
SELECT d.datconnlimit AS connection_limit,
       pg_catalog.pg_database_size(d.oid) AS bytes,
       pg_catalog.shobj_description(d.oid, 'pg_database') AS comment,
       (SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE rolname = $2) AS can_login,
       (d.datconnlimit = 0 OR (
           (SELECT o.rolsuper FROM pg_catalog.pg_roles AS o WHERE o.oid = d.datdba)
           AND NOT EXISTS (
               SELECT FROM pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) AS a
               LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = a.grantee
               WHERE a.privilege_type = 'CONNECT'
                 AND (a.grantee = 0 OR NOT (g.rolsuper OR g.rolname ~ '^rehome_[0-9a-f]{32}_[a-z]+$')))
       )) AS closed,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity AS a
        WHERE (a.datname = $1 OR a.usename = $2) AND a.pid <> pg_catalog.pg_backend_pid()
          AND a.backend_type NOT IN ('autovacuum worker', 'walsender')
          AND NOT (a.usename = session_user AND a.application_name LIKE 'rehome:%')
          AND NOT coalesce(a.usename ~ '^rehome_[0-9a-f]{32}_[a-z]+$', false)) AS sessions
FROM (SELECT 1) AS always LEFT JOIN pg_catalog.pg_database AS d ON d.datname = $1;

-- name: databases
-- Databases that carry a comment of ours, or a name that only we give.
SELECT datname::pg_catalog.text AS name, pg_catalog.shobj_description(oid, 'pg_database') AS comment FROM pg_catalog.pg_database
WHERE pg_catalog.shobj_description(oid, 'pg_database') LIKE '%"rehome"%'
   OR datname ~ '^rehome_making_[0-9a-f]{32}$'
ORDER BY datname;

-- name: sessions
-- Sessions that work for a migration: of our own login under a migration's name, and of short-lived roles.
SELECT found.migration, pg_catalog.count(*) AS count, pg_catalog.min(found.since) AS since
FROM (
    SELECT CASE WHEN usename = session_user THEN pg_catalog.substr(application_name, 8)
                ELSE pg_catalog.substr(usename::pg_catalog.text, 8, 32) END AS migration,
           backend_start AS since
    FROM pg_catalog.pg_stat_activity
    WHERE pid <> pg_catalog.pg_backend_pid()
      AND ((usename = session_user AND application_name ~ '^rehome:[0-9a-f]{8}-')
           OR usename ~ '^rehome_[0-9a-f]{32}_[a-z]+$')
) AS found
GROUP BY found.migration;

-- name: roles
-- Short-lived roles, by the name that only we give.
SELECT DISTINCT pg_catalog.substr(rolname::pg_catalog.text, 8, 32) AS migration FROM pg_catalog.pg_roles
WHERE rolname ~ '^rehome_[0-9a-f]{32}(_[a-z]+)?$' ORDER BY 1;

-- name: owned
-- Databases that a role owns, and whether it has any session.
SELECT ARRAY(SELECT datname::pg_catalog.text FROM pg_catalog.pg_database WHERE datdba = r.oid ORDER BY datname) AS databases,
       EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS a WHERE a.usesysid = r.oid) AS connected,
       EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m WHERE m.roleid = r.oid) AS has_members,
       rolcanlogin AS can_login, rolsuper AS superuser
FROM pg_catalog.pg_roles AS r WHERE rolname = $1;
