-- What a copy needs to know of the database that is dumped, and of the one that is restored into. Run inside it.

-- name: source
-- Owner, version and size; `data_bytes` without indexes, which a dump does not hold. Schema public has an oid of
-- its own where somebody made it anew.
SELECT pg_get_userbyid(d.datdba)::text AS owner,
       (SELECT oid::bigint FROM pg_namespace WHERE nspname = 'public') AS public_schema,
       current_setting('server_version_num')::int AS version,
       pg_database_size(d.oid) AS bytes,
       (SELECT coalesce(sum(pg_table_size(oid)), 0)::bigint FROM pg_class WHERE relkind IN ('r', 'm'))
           AS data_bytes
FROM pg_database AS d WHERE d.datname = current_database();

-- name: source_extensions
-- Extensions in the order they were made: whether a schema came with them, whether the database's owner
-- made them, and their tables whose rows a dump holds.
SELECT e.extname::text AS name,
       e.extversion AS version,
       n.nspname::text AS schema,
       n.oid::bigint AS schema_oid,
       EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid
               AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e') AS own_schema,
       e.extowner = (SELECT datdba FROM pg_database WHERE datname = current_database()) AS by_owner,
       ARRAY(SELECT config::bigint FROM unnest(e.extconfig) AS config) AS tables,
       ARRAY(SELECT cn.nspname || ' ' || c.relname FROM unnest(e.extconfig) AS config
             JOIN pg_class AS c ON c.oid = config AND c.relkind = 'S'
             JOIN pg_namespace AS cn ON cn.oid = c.relnamespace) AS sequences
FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
ORDER BY e.oid;

-- name: empty
-- Whether the database is as CREATE DATABASE made it from template0: nothing has a number users' things get.
SELECT NOT EXISTS (SELECT FROM pg_class WHERE oid >= 16384 AND relpersistence <> 't')
   AND NOT EXISTS (SELECT FROM pg_proc WHERE oid >= 16384)
   AND NOT EXISTS (SELECT FROM pg_type WHERE oid >= 16384 AND typrelid = 0)
   AND NOT EXISTS (SELECT FROM pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_(toast_)?temp_')
   AND NOT EXISTS (SELECT FROM pg_extension WHERE oid >= 16384)
   AND NOT EXISTS (SELECT FROM pg_largeobject_metadata);

-- name: extension_versions
-- Versions of an extension that can be installed, and whether an ordinary role may do so.
SELECT version, trusted FROM pg_available_extension_versions WHERE name = $1;

-- name: schema_exists
-- Whether there is a schema.
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1);

-- name: size
-- Bytes of the database now.
SELECT pg_database_size(current_database());
