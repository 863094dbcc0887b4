-- What is counted and summed over in a database. Run inside it, with the settings of consumer.adapters.verification,
-- by a role that may read the tenant's tables. Every name is qualified.

-- name: tables
-- Every table with rows of its own, largest first: plain tables, partitions, and those of extensions' tables whose
-- rows a dump holds (with the condition under which it does). Rows of materialized views are not the tenant's data:
-- a restore fills them afresh, while the source's may be stale.
SELECT c.oid,
       ARRAY[n.nspname, c.relname]::pg_catalog.text[] AS name,
       pg_catalog.format('%I.%I', n.nspname, c.relname) AS quoted,
       coalesce(am.amname = 'heap', false) AS heap,
       pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::pg_catalog.int4 AS blocks,
       coalesce(config.condition, '') AS condition,
       c.relnatts::pg_catalog.int4 AS width
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am AS am ON am.oid = c.relam
LEFT JOIN pg_catalog.pg_depend AS e
    ON e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid AND e.objsubid = 0
        AND e.deptype = 'e'
LEFT JOIN LATERAL (
    SELECT x.extcondition[p.place] AS condition
    FROM pg_catalog.pg_extension AS x, pg_catalog.unnest(x.extconfig) WITH ORDINALITY AS p(relation, place)
    WHERE x.oid = e.refobjid AND p.relation = c.oid
) AS config ON true
WHERE c.relkind = 'r' AND c.oid >= 16384 AND c.relpersistence <> 't'
  AND (e.objid IS NULL OR config.condition IS NOT NULL)
ORDER BY blocks DESC, c.oid;

-- name: columns
-- Of some tables the columns, as they are summed up: in the order of their names, since a child table may get its
-- parent's first when it is made anew; of bytea the SHA-256, since text is twice as long.
SELECT a.attrelid AS relation,
       pg_catalog.string_agg(
           CASE WHEN a.atttypid = 'pg_catalog.bytea'::pg_catalog.regtype
                THEN pg_catalog.format('pg_catalog.sha256(t.%I)', a.attname)
                ELSE pg_catalog.format('t.%I', a.attname) END, ', ' ORDER BY a.attname COLLATE pg_catalog."C")
                    AS columns
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = ANY ($1::pg_catalog.oid[]) AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY a.attrelid;

-- name: sequences
-- Some sequences and how they count, those after a number; in the order of their numbers.
SELECT c.oid,
       ARRAY[n.nspname, c.relname]::pg_catalog.text[] AS name,
       pg_catalog.format('%I.%I', n.nspname, c.relname) AS quoted,
       pg_catalog.concat_ws(
           ' ', 'type=' || pg_catalog.format_type(s.seqtypid, NULL), 'start=' || s.seqstart,
           'increment=' || s.seqincrement, 'min=' || s.seqmin, 'max=' || s.seqmax,
           'cache=' || s.seqcache, 'cycle=' || s.seqcycle,
           'owned_by=' || (
               SELECT d.refobjid::pg_catalog.regclass || '.' || a.attname
               FROM pg_catalog.pg_depend AS d
               JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
               WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.refobjsubid > 0
                 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                 AND d.deptype IN ('a', 'i'))) AS definition
FROM pg_catalog.pg_sequence AS s
JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND c.relpersistence <> 't' AND c.oid > $1
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid
                      AND e.deptype = 'e')
ORDER BY c.oid LIMIT $2;

-- name: has_large_objects
-- Whether there are any large objects; everybody may ask.
SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata);
