-- Row counts and checksums of a database. Run inside it, with the settings of
-- rehome_consumer.adapters.postgres.verification, by a role that may read the tenant's tables. Every name is qualified.

-- name: tables
-- Every table with rows of its own, largest first: plain tables, partitions, and those of extensions' tables whose
-- rows a dump holds (with the condition under which it does). Rows of materialized views are not the tenant's data:
-- a restore fills them again, while the source's may be out of date.
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
-- The columns of some tables, as they are read: in the order of their names, since a child table that is created again may
-- get its parent's columns first; of bytea the SHA-256, since text is twice as long.
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
-- Sequences and how they count: the next $2 after the oid $1.
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
-- Whether there are any large objects; any role may ask.
SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata);

-- name: database
-- How text is stored and sorted, and the server's major version.
SELECT pg_catalog.pg_encoding_to_char(d.encoding)::pg_catalog.text AS encoding,
       d.datcollate::pg_catalog.text AS collation,
       d.datctype::pg_catalog.text AS ctype,
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') AS provider,
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale', '') AS locale,
       coalesce(pg_catalog.to_jsonb(d) ->> 'daticurules', '') AS icu_rules,
       pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000 || '' AS major
FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database();

-- name: plain
-- A query of fingerprint.sql (its text replaces {kind}) with names as every version writes them: without quotes around
-- those that need none. A word that a later version reserves, such as json_value in 17, gets quotes there.
SELECT k.label,
       ARRAY(SELECT CASE WHEN pg_catalog.strpos(p.text, '"') = 0 THEN p.text
                         ELSE pg_catalog.regexp_replace(p.text, '"([a-z_][a-z0-9_$]*)"', '\1', 'g') END
             FROM pg_catalog.unnest(k.name) WITH ORDINALITY AS p(text, place) ORDER BY p.place) AS name,
       CASE WHEN pg_catalog.strpos(k.value, '"') = 0 THEN k.value
            ELSE pg_catalog.regexp_replace(k.value, '"([a-z_][a-z0-9_$]*)"', '\1', 'g') END AS value
FROM ({kind}) AS k;

-- name: parts
-- Digests of a query of fingerprint.sql (its text replaces {kind}): rows are sorted into parts by a hash of their names;
-- of each part their number, and SHA-256 over the sorted SHA-256 of names with values. Label, name and value cannot
-- be confused: no label has a brace, and the text of an array ends with one.
SELECT one.part, pg_catalog.count(*) AS count,
       pg_catalog.sha256(pg_catalog.string_agg(one.digest, ''::pg_catalog.bytea ORDER BY one.digest)) AS digest
FROM (
    SELECT pg_catalog.hashtextextended(o.named COLLATE pg_catalog."C", 0) & $1::pg_catalog.int8 AS part,
           pg_catalog.sha256(pg_catalog.convert_to(
               o.named || coalesce(o.value, ''), pg_catalog.getdatabaseencoding())) AS digest
    FROM (SELECT k.label || k.name::pg_catalog.text AS named, k.value FROM ({kind}) AS k) AS o
) AS one
GROUP BY one.part;

-- name: count
-- How many rows a query of fingerprint.sql gives (its text replaces {kind}).
SELECT pg_catalog.count(*) FROM ({kind}) AS k;

-- name: some
-- The first rows of some of those parts, in the order of a hash of their names. Names and values are cut to what
-- people are shown; the digest is of the complete value.
SELECT one.part, one.key, one.label, one.name, one.value, one.digest
FROM (
    SELECT o.part, o.key, o.label,
           ARRAY(SELECT coalesce(pg_catalog."left"(p.text, $4), '') FROM pg_catalog.unnest(o.name) WITH ORDINALITY AS p(text, place)
                 ORDER BY p.place) AS name,
           pg_catalog."left"(o.value, $4) AS value,
           pg_catalog.sha256(pg_catalog.convert_to(o.named || o.value, pg_catalog.getdatabaseencoding())) AS digest,
           pg_catalog.row_number() OVER (PARTITION BY o.part ORDER BY o.key) AS place
    FROM (
        SELECT pg_catalog.hashtextextended(i.named COLLATE pg_catalog."C", 0) & $1::pg_catalog.int8 AS part,
               pg_catalog.sha256(pg_catalog.convert_to(i.named, pg_catalog.getdatabaseencoding())) AS key,
               i.label, i.name, i.named, coalesce(i.value, '') AS value
        FROM (SELECT k.label, k.name, k.label || k.name::pg_catalog.text AS named, k.value
              FROM ({kind}) AS k) AS i
    ) AS o
    WHERE o.part = ANY ($2::pg_catalog.int8[])
) AS one
WHERE one.place <= $3
ORDER BY one.part, one.key;
