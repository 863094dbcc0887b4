-- Large objects: their pages are in a catalogue that only superusers may read, and that holds nothing of a tenant's that
-- could run.

-- name: large_objects
-- Number of large objects, and a sum over oids, sizes and pages. A hole is read as zeros and restored as zeros, so zeros
-- at the end of a page do not count.
SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata) AS rows,
       (SELECT coalesce(pg_catalog.sum(pg_catalog.hashtextextended(oid::pg_catalog.text, 0)), 0)
        FROM pg_catalog.pg_largeobject_metadata)
       + coalesce((SELECT pg_catalog.sum(pg_catalog.hashtextextended(loid || ':' || bytes, 0))
                   FROM (SELECT loid, pg_catalog.max(pageno::pg_catalog.int8 * page.bytes
                                                     + pg_catalog.octet_length(data)) AS bytes
                         FROM pg_catalog.pg_largeobject,
                              (SELECT pg_catalog.current_setting('block_size')::pg_catalog.int4 / 4 AS bytes) AS page
                         GROUP BY loid) AS sizes), 0)
       + coalesce((SELECT pg_catalog.sum(pg_catalog.hashtextextended(loid || ':' || pageno || ':' || trimmed, 0))
                   FROM (SELECT loid, pageno, pg_catalog.rtrim(pg_catalog.encode(data, 'hex'), '0') AS trimmed
                         FROM pg_catalog.pg_largeobject) AS pages WHERE trimmed <> ''), 0) AS total;
