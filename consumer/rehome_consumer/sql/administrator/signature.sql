-- The signature of a database's catalogs: rows of text, which are equal when no definition was changed in between. Read by
-- the administrator in one transaction, inside the database; of catalogs that PostgreSQL brings along, nothing else.
-- Whoever changes a definition writes a new version of a row, whose xmin is the number of a transaction that was not over
-- before, or removes one: of no number are there as many as before. What VACUUM and ANALYZE write in place, freezing, and the
-- order of rows change nothing here.

-- name: catalogs
-- The server's own list of catalogs of one database, so that those of newer releases are in it. Without statistics, which
-- ANALYZE writes, the contents of large objects, and which tables a subscription has copied: none is a definition.
SELECT c.relname::pg_catalog.text AS name
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'pg_catalog' AND c.relkind = 'r' AND NOT c.relisshared AND c.oid < 16384
  AND c.relname NOT IN ('pg_statistic', 'pg_statistic_ext_data', 'pg_largeobject', 'pg_subscription_rel')
ORDER BY c.relname;

-- name: pg_namespace
-- Schemas, but not those for temporary objects, which stay when a session has ended.
SELECT 'pg_namespace ' || n.xmin::pg_catalog.text || ' ' || pg_catalog.count(*) AS line
FROM pg_catalog.pg_namespace AS n
WHERE n.nspname !~ '^pg_(toast_)?temp_' GROUP BY n.xmin;

-- name: pg_class
-- Tables and all that is like one. A refresh gives a materialized view and its indexes new files: of these what is in the row,
-- without what says where the rows are and how many. It makes its TOAST table anew: of that the options.
SELECT 'pg_class ' || c.xmin::pg_catalog.text || ' ' || pg_catalog.count(*) AS line
FROM pg_catalog.pg_class AS c
WHERE c.oid NOT IN (
    SELECT m.oid FROM pg_catalog.pg_class AS m WHERE m.relkind = 'm'
    UNION ALL
    SELECT m.reltoastrelid FROM pg_catalog.pg_class AS m WHERE m.relkind = 'm'
    UNION ALL
    SELECT i.indexrelid FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS m ON i.indrelid IN (m.oid, m.reltoastrelid) WHERE m.relkind = 'm')
GROUP BY c.xmin
UNION ALL
SELECT 'pg_class ' || (pg_catalog.to_jsonb(c)
           - ARRAY['relfilenode', 'reltoastrelid', 'relpages', 'reltuples', 'relallvisible', 'relallfrozen', 'relfrozenxid',
                   'relminmxid']::pg_catalog.text[])::pg_catalog.text
       || ' ' || coalesce(pg_catalog.to_jsonb(t.reloptions)::pg_catalog.text, '') AS line
FROM pg_catalog.pg_class AS c LEFT JOIN pg_catalog.pg_class AS t ON t.oid = c.reltoastrelid
WHERE c.relkind = 'm'
   OR c.oid IN (SELECT i.indexrelid FROM pg_catalog.pg_index AS i
                JOIN pg_catalog.pg_class AS m ON m.oid = i.indrelid WHERE m.relkind = 'm');

-- name: pg_attribute
-- Columns, but not those of TOAST tables of materialized views, which are always the same.
SELECT 'pg_attribute ' || a.xmin::pg_catalog.text || ' ' || pg_catalog.count(*) AS line
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid NOT IN (
    SELECT m.reltoastrelid FROM pg_catalog.pg_class AS m WHERE m.relkind = 'm'
    UNION ALL
    SELECT i.indexrelid FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS m ON m.reltoastrelid = i.indrelid WHERE m.relkind = 'm')
GROUP BY a.xmin;

-- name: pg_index
-- Indexes, but not those of these TOAST tables.
SELECT 'pg_index ' || i.xmin::pg_catalog.text || ' ' || pg_catalog.count(*) AS line
FROM pg_catalog.pg_index AS i
WHERE i.indrelid NOT IN (SELECT m.reltoastrelid FROM pg_catalog.pg_class AS m WHERE m.relkind = 'm')
GROUP BY i.xmin;

-- name: pg_depend
-- What depends on what, but not these TOAST tables and their indexes.
SELECT 'pg_depend ' || d.xmin::pg_catalog.text || ' ' || pg_catalog.count(*) AS line
FROM pg_catalog.pg_depend AS d
WHERE d.classid <> 'pg_catalog.pg_class'::pg_catalog.regclass OR d.objid NOT IN (
    SELECT m.reltoastrelid FROM pg_catalog.pg_class AS m WHERE m.relkind = 'm'
    UNION ALL
    SELECT i.indexrelid FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS m ON m.reltoastrelid = i.indrelid WHERE m.relkind = 'm')
GROUP BY d.xmin;

-- name: roles
-- Names of roles that definitions mention as owners, in privileges and policies, and which are superusers: that is in a catalog
-- of all databases, in which others change other rows, and the fence this one's.
SELECT 'role ' || r.oid || ' ' || pg_catalog.to_jsonb(r.rolname)::pg_catalog.text || ' ' || r.rolsuper AS line
FROM pg_catalog.pg_roles AS r
WHERE r.oid < 16384
   OR r.oid IN (SELECT d.refobjid FROM pg_catalog.pg_shdepend AS d JOIN pg_catalog.pg_database AS b ON b.oid = d.dbid
                WHERE b.datname = pg_catalog.current_database()
                  AND d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass);

-- name: place
-- Which database that is, of which server, in which of its histories: one that was restored or promoted begins another one, in
-- which numbers of transactions come again.
SELECT 'place ' || s.system_identifier || ' '
       || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) || ' ' || b.oid AS line
FROM pg_catalog.pg_control_system() AS s, pg_catalog.pg_database AS b
WHERE b.datname = pg_catalog.current_database();
