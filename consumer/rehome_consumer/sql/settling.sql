-- What is done to a copy that has followed its source. Run inside it, with the tenant's rights; every name is qualified.

-- name: set_positions
-- Let sequences ($1, as the server quotes them) stand at $2; $3: whether that value was given out already.
SELECT pg_catalog.count(pg_catalog.setval(s.name::pg_catalog.regclass, s.value, s.called))
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.int8[]),
                pg_catalog.unnest($3::pg_catalog.bool[])) AS s(name, value, called);

-- name: materialized_views
-- Materialized views that have contents, in the order in which they were restored: each after those that it reads.
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS quoted
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated AND c.oid >= 16384 ORDER BY c.oid;
