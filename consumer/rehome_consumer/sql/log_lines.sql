-- What consumers have logged in steps. A help for people: nothing depends on it, and nothing waits for it.

-- name: keep
-- Add lines, in this order.
INSERT INTO rehome.log_lines (migration_id, at, line)
SELECT migration_id, at, line
FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) WITH ORDINALITY AS given (migration_id, at, line, place)
ORDER BY place;

-- name: purge
-- Delete lines that are older than this many days, a batch at a time.
DELETE FROM rehome.log_lines WHERE seq IN (
    SELECT seq FROM rehome.log_lines WHERE at < now() - make_interval(secs => $1 * 86400) LIMIT 1000
);

-- name: lines
-- The last lines of a migration before this one (null: the last of all), newest first, not more than so many.
SELECT seq, at, line FROM rehome.log_lines
WHERE migration_id = $1 AND ($2::bigint IS NULL OR seq < $2) ORDER BY seq DESC LIMIT $3;
