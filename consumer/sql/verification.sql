-- What is counted and summed over in a database. Run inside it, with the settings of consumer.adapters.verification.

-- name: tables
-- Every table with rows of its own: plain tables, partitions, and those of extensions' tables whose rows a dump
-- holds (with the condition under which it does). Columns are in the order of their names, since a child table
-- may get its parent's first when it is made anew; of bytea the SHA-256, since text is twice as long. Rows of
-- materialized views are not the tenant's data: a restore fills them afresh, while the source's may be stale.
SELECT ARRAY[n.nspname, c.relname]::text[] AS name,
       format('%I.%I', n.nspname, c.relname) AS quoted,
       coalesce(am.amname = 'heap', false) AS heap,
       pg_relation_size(c.oid) / current_setting('block_size')::int AS blocks,
       coalesce(config.condition, '') AS condition,
       coalesce((SELECT string_agg(CASE WHEN a.atttypid = 'bytea'::regtype THEN format('sha256(t.%I)', a.attname)
                                        ELSE format('t.%I', a.attname) END, ', ' ORDER BY a.attname COLLATE "C")
                 FROM pg_attribute AS a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '') AS columns
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_am AS am ON am.oid = c.relam
LEFT JOIN pg_depend AS e ON e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.objsubid = 0 AND e.deptype = 'e'
LEFT JOIN LATERAL (
    SELECT x.extcondition[p.place] AS condition
    FROM pg_extension AS x, unnest(x.extconfig) WITH ORDINALITY AS p(relation, place)
    WHERE x.oid = e.refobjid AND p.relation = c.oid
) AS config ON true
WHERE c.relkind = 'r' AND c.oid >= 16384 AND c.relpersistence <> 't'
  AND (e.objid IS NULL OR config.condition IS NOT NULL);

-- name: sequences
-- Sequences and how they count.
SELECT ARRAY[n.nspname, c.relname]::text[] AS name,
       format('%I.%I', n.nspname, c.relname) AS quoted,
       concat_ws(' ', 'type=' || format_type(s.seqtypid, NULL), 'start=' || s.seqstart,
                 'increment=' || s.seqincrement, 'min=' || s.seqmin, 'max=' || s.seqmax,
                 'cache=' || s.seqcache, 'cycle=' || s.seqcycle,
                 'owned_by=' || (SELECT d.refobjid::regclass || '.' || a.attname
                                 FROM pg_depend AS d
                                 JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                                 WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refobjsubid > 0
                                   AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))) AS definition
FROM pg_sequence AS s
JOIN pg_class AS c ON c.oid = s.seqrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_depend AS e
                  WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e');

-- name: large_objects
-- Large objects: how many, and a sum over numbers, sizes and pages. A hole reads as zeros and is restored as
-- zeros, so zeros at the end of a page do not count.
SELECT (SELECT count(*) FROM pg_largeobject_metadata) AS rows,
       (SELECT coalesce(sum(hashtextextended(oid::text, 0)), 0) FROM pg_largeobject_metadata)
       + coalesce((SELECT sum(hashtextextended(loid || ':' || bytes, 0))
                   FROM (SELECT loid, max(pageno::bigint * (current_setting('block_size')::int / 4)
                                          + octet_length(data)) AS bytes
                         FROM pg_largeobject GROUP BY loid) AS sizes), 0)
       + coalesce((SELECT sum(hashtextextended(loid || ':' || pageno || ':' || trimmed, 0))
                   FROM (SELECT loid, pageno, rtrim(encode(data, 'hex'), '0') AS trimmed
                         FROM pg_largeobject) AS pages WHERE trimmed <> ''), 0) AS total;

-- name: database
-- How text is stored and sorted, and the server's major version.
SELECT pg_encoding_to_char(d.encoding)::text AS encoding,
       d.datcollate::text AS collation,
       d.datctype::text AS ctype,
       coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') AS provider,
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', '') AS locale,
       current_setting('server_version_num')::int / 10000 || '' AS major
FROM pg_database AS d WHERE d.datname = current_database();
