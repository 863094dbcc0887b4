-- The journal as documents, for the console and `rehome report`. Schema rehome. Only reads.

-- name: page
-- Migrations, newest first, with their step at work or last, and when the instance was stopped and served again. NULL
-- does not filter: an instance's or a migration's id, states, whether over; $3 and $6: only those after this one.
SELECT m.id, m.instance_id, m.attempt, m.state, m.past_pivot, m.to_plan, m.reason, m.created_at, m.updated_at,
       m.ended_at, s.step, s.state AS step_state, s.tries, s.error, s.next_try_at, s.started_at, s.tried_at,
       s.progress_done, s.progress_total,
       (SELECT f.value #>> '{}' FROM rehome.facts f
        WHERE f.migration_id = m.id AND f.attempt = m.attempt AND f.name = 'stopped_at') AS stopped_at,
       (SELECT min(f.value #>> '{}') FROM rehome.facts f
        WHERE f.migration_id = m.id AND f.attempt = m.attempt AND f.name IN ('healthy_at', 'restarted_at')) AS up_at
FROM rehome.migrations m
LEFT JOIN LATERAL (
    SELECT * FROM rehome.steps s WHERE s.migration_id = m.id AND s.attempt = m.attempt
    ORDER BY s.tried_at DESC, s.started_at DESC LIMIT 1
) s ON true
WHERE ($1::uuid IS NULL OR m.instance_id = $1 OR m.id = $1)
    AND ($2::text[] IS NULL OR m.state = ANY($2))
    AND ($3::timestamptz IS NULL OR (m.created_at, m.id) < ($3, $6::uuid))
    AND ($4::boolean IS NULL OR (m.ended_at IS NOT NULL) = $4)
ORDER BY m.created_at DESC, m.id DESC LIMIT $5;

-- name: states
-- How many migrations are in each state, and whether those are over.
SELECT state, ended_at IS NOT NULL AS over, count(*) AS number FROM rehome.migrations GROUP BY 1, 2 ORDER BY 1, 2;

-- name: events
-- The events of a migration in the order in which they were stored; when each was sent.
SELECT event_id, routing_key AS type, created_at, sent_at, body FROM rehome.outbox WHERE migration_id = $1 ORDER BY seq;

-- name: changes
-- One text that differs whenever something that the console shows has changed. A step that is done has a line in the
-- history; of the others, where they are. LATERAL with OFFSET: by keys, however many migrations are over.
SELECT concat_ws(' ',
    (SELECT max(seq) FROM rehome.history),
    (SELECT md5(string_agg(concat_ws(' ', m.id, m.state, s.step, s.state, s.tries, s.progress_done, s.next_try_at), ','
                           ORDER BY m.id, s.step))
     FROM rehome.migrations m LEFT JOIN LATERAL (
         SELECT * FROM rehome.steps s
         WHERE s.migration_id = m.id AND s.attempt = m.attempt AND s.state <> 'done' OFFSET 0
     ) s ON true
     WHERE m.ended_at IS NULL),
    (SELECT concat_ws(' ', count(*), max(updated_at)) FROM rehome.waiting),
    (SELECT concat_ws(' ', count(*), max(at)) FROM rehome.dead_letters),
    (SELECT max(seq) FROM rehome.pauses)
) AS changes;

-- name: log_changes
-- The last line of any log.
SELECT max(seq)::text AS changes FROM rehome.log_lines;

-- name: step_seconds
-- Of each step the seconds from its first start to its end: how many between two of these bounds, and their sum.
SELECT step, width_bucket(seconds, $1::float8[]) AS bucket, count(*) AS number, sum(seconds)::float8 AS seconds
FROM (SELECT step, extract(epoch FROM done_at - started_at)::float8 AS seconds FROM rehome.steps WHERE state = 'done') s
WHERE seconds IS NOT NULL GROUP BY step, bucket ORDER BY step, bucket;

-- name: downtimes
-- How long instances were down, by how it ended: how many between two of these bounds, and their sum.
SELECT outcome, width_bucket(seconds, $1::float8[]) AS bucket, count(*) AS number, sum(seconds)::float8 AS seconds
FROM (
    SELECT CASE up.name WHEN 'healthy_at' THEN 'moved' ELSE 'rolled_back' END AS outcome,
           extract(epoch FROM (up.value #>> '{}')::timestamptz - (down.value #>> '{}')::timestamptz)::float8 AS seconds
    FROM rehome.facts down JOIN rehome.facts up
        ON (up.migration_id, up.attempt) = (down.migration_id, down.attempt) AND up.name IN ('healthy_at', 'restarted_at')
    WHERE down.name = 'stopped_at' AND NOT EXISTS (
        SELECT FROM rehome.facts first WHERE (first.migration_id, first.attempt) = (down.migration_id, down.attempt)
            AND up.name = 'restarted_at' AND first.name = 'healthy_at')
) d GROUP BY outcome, bucket ORDER BY outcome, bucket;

-- name: moves
-- Moves that are over, by how they ended and how the data was copied in the end; and the bytes of their databases, as
-- rehearsed, 0 where that is not known.
SELECT m.state AS outcome,
       CASE WHEN given_up.name IS NULL THEN strategy.value ->> 'name' ELSE 'cold' END AS strategy,
       count(*) AS number, coalesce(sum((rehearsal.value ->> 'database_bytes')::bigint), 0)::float8 AS bytes
FROM rehome.migrations m
JOIN rehome.facts strategy ON (strategy.migration_id, strategy.attempt, strategy.name) = (m.id, m.attempt, 'strategy')
LEFT JOIN rehome.facts rehearsal
    ON (rehearsal.migration_id, rehearsal.attempt, rehearsal.name) = (m.id, m.attempt, 'rehearsal')
LEFT JOIN rehome.facts given_up
    ON (given_up.migration_id, given_up.attempt, given_up.name) = (m.id, m.attempt, 'warm_given_up')
WHERE m.state IN ('completed', 'rolled_back') GROUP BY 1, 2 ORDER BY 1, 2;

-- name: tries
-- Of each step the tries that failed so far, and how many wait for their next try.
SELECT s.step, coalesce(sum(s.tries), 0)::bigint AS failed,
       count(*) FILTER (WHERE s.state = 'waiting' AND m.ended_at IS NULL AND m.attempt = s.attempt) AS waiting
FROM rehome.steps s JOIN rehome.migrations m ON m.id = s.migration_id GROUP BY s.step ORDER BY s.step;
