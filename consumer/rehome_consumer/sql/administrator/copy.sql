-- What a copy needs to know of the database that is dumped, and of the one that is restored into. Run inside it.

-- name: source
-- Version and size; `data_bytes` without indexes, which a dump does not hold. Schema public has another oid where
-- it was dropped and created again.
SELECT (SELECT oid::pg_catalog.int8 FROM pg_catalog.pg_namespace WHERE nspname = 'public') AS public_schema,
       pg_catalog.current_setting('server_version_num')::pg_catalog.int4 AS version,
       pg_catalog.pg_database_size(pg_catalog.current_database()) AS bytes,
       (SELECT pg_catalog.pg_encoding_to_char(encoding)::pg_catalog.text FROM pg_catalog.pg_database
        WHERE datname = pg_catalog.current_database()) AS encoding,
       (SELECT coalesce(pg_catalog.sum(pg_catalog.pg_table_size(oid)), 0)::pg_catalog.int8
        FROM pg_catalog.pg_class WHERE relkind IN ('r', 'm')) AS data_bytes;

-- name: calling_tables
-- Tables whose rows a function of the database's own is called for while they are loaded: in a check, in a check of a
-- column's domain, in a generated column. It may read another table.
SELECT DISTINCT found.oid::pg_catalog.int8 AS oid
FROM (
    SELECT coalesce(a.attrelid, c.conrelid) AS oid, d.refobjid AS function
    FROM pg_catalog.pg_constraint AS c
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = c.oid
        AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    LEFT JOIN pg_catalog.pg_attribute AS a ON c.contypid <> 0 AND a.atttypid = c.contypid
    WHERE c.contype = 'c'
    UNION ALL
    SELECT g.adrelid, d.refobjid
    FROM pg_catalog.pg_attrdef AS g
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = g.adrelid AND a.attnum = g.adnum AND a.attgenerated <> ''
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = g.oid
        AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
) AS found
WHERE found.oid >= 16384 AND found.function >= 16384 AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend AS e
    WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = found.function AND e.deptype = 'e');

-- name: spreading
-- Constraints and triggers whose creation locks other tables than those that a dump's entry names: what is on, or refers
-- to, a table that has partitions or children, or is one.
SELECT c.oid::pg_catalog.int8 AS oid FROM pg_catalog.pg_constraint AS c
WHERE c.contype NOT IN ('p', 'u', 'x') AND EXISTS (
    SELECT FROM pg_catalog.pg_inherits AS i
    WHERE i.inhparent IN (c.conrelid, c.confrelid) OR i.inhrelid IN (c.conrelid, c.confrelid))
UNION ALL
SELECT t.oid::pg_catalog.int8 FROM pg_catalog.pg_trigger AS t
WHERE EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE t.tgrelid IN (i.inhparent, i.inhrelid));

-- name: has_numbered_columns
-- Whether the server keeps a number of its own with columns (see `client_programs.require_column_numbers_known`).
SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a, pg_catalog.unnest(a.attoptions) AS o
               WHERE a.attrelid >= 16384 AND o LIKE 'pg\_attver=%');

-- name: source_extensions
-- Extensions in the order of their creation: whether their schema belongs to them, whether the tenant's role ($1) created
-- them, and their tables whose rows a dump holds.
SELECT e.extname::pg_catalog.text AS name,
       e.extversion AS version,
       n.nspname::pg_catalog.text AS schema,
       n.oid::pg_catalog.int8 AS schema_oid,
       EXISTS (SELECT FROM pg_catalog.pg_depend AS d
               WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objid = n.oid
               AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e') AS own_schema,
       pg_catalog.pg_get_userbyid(e.extowner) = $1::pg_catalog.name AS by_owner,
       ARRAY(SELECT config::pg_catalog.int8 FROM pg_catalog.unnest(e.extconfig) AS config) AS tables,
       ARRAY(SELECT cn.nspname || ' ' || c.relname FROM pg_catalog.unnest(e.extconfig) AS config
             JOIN pg_catalog.pg_class AS c ON c.oid = config AND c.relkind = 'S'
             JOIN pg_catalog.pg_namespace AS cn ON cn.oid = c.relnamespace) AS sequences
FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
ORDER BY e.oid;

-- name: schemas_of_others
-- Schemas that belong to an administrator or to whoever owns the database, and which of the two.
SELECT n.nspname::pg_catalog.text AS name,
       CASE r.rolname WHEN 'pg_database_owner' THEN 'database' ELSE 'administrator' END AS owner
FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS r ON r.oid = n.nspowner
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (r.rolsuper OR r.rolname = 'pg_database_owner')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                  WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objid = n.oid AND d.deptype = 'e')
ORDER BY 1;

-- name: extension_members
-- What belongs to an extension ($1): extension, kind, identity. A dump leaves all of it out.
SELECT e.extname::pg_catalog.text AS extension, i.type AS kind, i.identity AS identity
FROM pg_catalog.pg_depend AS d
JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid,
LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) AS i
WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
  AND e.extname = $1
ORDER BY 2, 3;

-- name: extension_functions
-- Functions of an extension ($1): identity, what ALTER FUNCTION can change and a move carries over, and all the rest of it.
SELECT i.identity AS identity,
       CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END
           || ' PARALLEL '
           || CASE p.proparallel WHEN 's' THEN 'SAFE' WHEN 'r' THEN 'RESTRICTED' ELSE 'UNSAFE' END AS carried,
       pg_catalog.concat_ws(
           ' ', 'strict=' || p.proisstrict, 'leakproof=' || p.proleakproof, 'security_definer=' || p.prosecdef,
           'cost=' || p.procost, 'rows=' || p.prorows, 'config=' || p.proconfig::pg_catalog.text,
           'source=' || pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(p.prosrc, 'UTF8')), 'hex')) AS rest
FROM pg_catalog.pg_depend AS d
JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
JOIN pg_catalog.pg_proc AS p ON p.oid = d.objid,
LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) AS i
WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
  AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.prokind IN ('f', 'w') AND e.extname = $1
ORDER BY 1;

-- name: empty
-- Whether the database is as CREATE DATABASE made it from template0: nothing has an oid as users' objects get.
SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid >= 16384 AND relpersistence <> 't')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE oid >= 16384)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_type WHERE oid >= 16384 AND typrelid = 0)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_(toast_)?temp_')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE oid >= 16384)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata);

-- name: extension_versions
-- Versions of an extension that can be created, and whether an ordinary role may do so.
SELECT version, trusted FROM pg_catalog.pg_available_extension_versions WHERE name = $1;

-- name: schema_exists
-- Whether a schema exists.
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1);

-- name: size
-- Bytes of a database now, if it exists.
SELECT pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database WHERE datname = $1;
