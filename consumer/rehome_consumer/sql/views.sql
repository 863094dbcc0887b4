-- The journal for operators: reads, and the few writes of the commands. Schema rehome.

-- name: list
-- Migrations, newest first, with their step at work or last. NULL or true does not filter: an instance's or
-- migration's id, whether those over count, a list of ids.
SELECT m.id, m.instance_id, m.attempt, m.state, m.past_pivot, m.to_plan, m.reason, m.created_at, m.updated_at,
       m.ended_at, s.step, s.state AS step_state, s.tries, s.error, s.next_try_at, s.started_at, s.tried_at,
       s.progress_done, s.progress_total
FROM rehome.migrations m
LEFT JOIN LATERAL (
    SELECT * FROM rehome.steps s WHERE s.migration_id = m.id AND s.attempt = m.attempt
    ORDER BY s.tried_at DESC, s.started_at DESC LIMIT 1
) s ON true
WHERE ($1::uuid IS NULL OR m.instance_id = $1 OR m.id = $1) AND ($2 OR m.ended_at IS NULL)
    AND ($4::uuid[] IS NULL OR m.id = ANY($4))
ORDER BY m.created_at DESC LIMIT $3;

-- name: waiting
-- Upgrades that wait for the end of another migration of their instance, longest waiting first.
SELECT w.migration_id AS id, w.instance_id, w.to_plan, w.since AS created_at, w.updated_at AS updated_at, w.next_try_at,
       w.behind, m.state AS behind_state, m.ended_at IS NOT NULL AS behind_over
FROM rehome.waiting w JOIN rehome.migrations m ON m.id = w.behind
WHERE $1::uuid IS NULL OR w.instance_id = $1 OR w.migration_id = $1 OR w.behind = $1
ORDER BY w.since;

-- name: lock_pauses
-- Let one order to pause or to resume come after the other; ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('rehome.pauses', 0));

-- name: order_pause
-- Pause all moves, or let them go on; no row where that is so already.
INSERT INTO rehome.pauses (paused, by, why)
SELECT $1, $2, $3
WHERE $1 <> coalesce((SELECT paused FROM rehome.pauses ORDER BY seq DESC LIMIT 1), false) RETURNING seq;

-- name: pauses
-- The last orders to pause and to go on, newest first.
SELECT at, paused, by, why FROM rehome.pauses ORDER BY seq DESC LIMIT $1;

-- name: let_go
-- Let the attempt of a migration go on outside of the maintenance window, with a line in its history; no row where it is
-- over, or at another attempt.
WITH this AS (
    SELECT id, attempt FROM rehome.migrations WHERE id = $1 AND attempt = $2 AND ended_at IS NULL
), fact AS (
    INSERT INTO rehome.facts (migration_id, attempt, name, value)
    SELECT id, attempt, 'let_go_at', to_jsonb(now()) FROM this ON CONFLICT DO NOTHING RETURNING migration_id
), line AS (
    INSERT INTO rehome.history (migration_id, attempt, what, detail) SELECT id, attempt, $3, $4 FROM this
)
SELECT EXISTS (SELECT FROM fact) AS new FROM this;

-- name: forget_waiting
-- An upgrade whose event was discarded waits no more.
DELETE FROM rehome.waiting WHERE event_id::text = $1;

-- name: dead_letters
-- Deliveries of open migrations that are dead letters, as far as the engine could record them.
SELECT l.message_id AS id, l.step AS handler, l.reason, l.migration_id, l.at AS since
FROM rehome.dead_letters l JOIN rehome.migrations m ON m.id = l.migration_id AND m.attempt = l.attempt
WHERE m.ended_at IS NULL ORDER BY l.at;

-- name: forget_dead_letter
-- A dead letter that was discarded.
DELETE FROM rehome.dead_letters WHERE message_id = $1 AND step = $2;

-- name: newest_moves
-- Of each instance, or of the one given, its last migration that moved something or may still do so: not in a
-- state of the second argument. Of all instances only those that were over in the last month at most.
SELECT DISTINCT ON (instance_id) id FROM rehome.migrations
WHERE state <> ALL($2)
  AND (instance_id = $1 OR $1 IS NULL AND (ended_at IS NULL OR ended_at > now() - interval '31 days'))
ORDER BY instance_id, ended_at IS NULL DESC, created_at DESC;

-- name: moves_from
-- Of each of these instances ($2) its last migration that moved something or may still do so (not in a state of $3); and
-- the open ones that were accepted while their instance was on this server ($1).
SELECT id FROM (
    SELECT DISTINCT ON (instance_id) id FROM rehome.migrations
    WHERE instance_id = ANY($2::uuid[]) AND state <> ALL($3)
    ORDER BY instance_id, ended_at IS NULL DESC, created_at DESC
) last
UNION
SELECT m.id FROM rehome.migrations m
JOIN rehome.facts f ON (f.migration_id, f.attempt, f.name) = (m.id, m.attempt, 'source')
WHERE m.ended_at IS NULL AND f.value #>> '{}' = $1::uuid::text;

-- name: steps_of
-- All steps of a migration, in the order they were started.
SELECT attempt, step, state, tries, error, next_try_at, started_at, tried_at, done_at, dead_lettered,
       progress_done, progress_total
FROM rehome.steps WHERE migration_id = $1 ORDER BY attempt, started_at;

-- name: history
-- A migration's history, oldest first.
SELECT attempt, at, what, detail FROM rehome.history WHERE migration_id = $1 ORDER BY seq;

-- name: last_line
-- The number of the newest line of all histories; 0 when there is none.
SELECT coalesce(max(seq), 0) FROM rehome.history;

-- name: lines_after
-- Lines of all histories, or of one instance's or migration's, numbered higher than this.
SELECT h.seq, h.at, h.what, h.detail, h.attempt, m.id AS migration_id, m.instance_id
FROM rehome.history h JOIN rehome.migrations m ON m.id = h.migration_id
WHERE h.seq > $1 AND ($2::uuid IS NULL OR m.instance_id = $2 OR m.id = $2)
ORDER BY h.seq LIMIT 1000;

-- name: facts
-- The facts of an attempt; of a secret only its name.
SELECT name, value FROM rehome.facts WHERE migration_id = $1 AND attempt = $2;

-- name: newer
-- The last migration of the same instance that was opened after this one and was not rejected.
SELECT n.id, n.state FROM rehome.migrations m
JOIN rehome.migrations n ON n.instance_id = m.instance_id AND n.created_at > m.created_at
WHERE m.id = $1 AND n.state <> 'rejected' ORDER BY n.created_at DESC LIMIT 1;

-- name: last_of_instance
-- The last migration of an instance that was opened after this moment and was not rejected.
SELECT id, state FROM rehome.migrations
WHERE instance_id = $1 AND created_at > $2 AND state <> 'rejected' ORDER BY created_at DESC LIMIT 1;

-- name: holders
-- Who holds the claims on these instances: the session of the advisory lock that rehome_consumer.adapters.state.claims takes,
-- and since when it has worked on the step that runs now.
SELECT k.instance_id, a.pid, coalesce(host(a.client_addr), 'local') AS address, coalesce((
        SELECT max(s.tried_at) FROM rehome.migrations m JOIN rehome.steps s ON s.migration_id = m.id
        WHERE m.instance_id = k.instance_id AND m.ended_at IS NULL AND s.state = 'running'
    ), now()) AS since
FROM (SELECT i AS instance_id, hashtextextended('rehome.instance:' || i::text, 0) AS key FROM unnest($1::uuid[]) i) k
JOIN pg_locks l ON l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.classid::bigint = (k.key >> 32) & 4294967295 AND l.objid::bigint = k.key & 4294967295
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
JOIN pg_stat_activity a ON a.pid = l.pid;

-- name: revoke
-- Ask whoever holds the claim on an instance to stop and release it.
SELECT pg_notify($1, $2);

-- name: end_session
-- End a session: the holder of its claims notices at once that all of them are lost.
SELECT pg_terminate_backend($1);

-- name: unsent
-- Events that wait to be sent, by migration: how many, since when, and which comes first.
SELECT o.migration_id, m.instance_id, count(*) AS count, min(o.created_at) AS since,
       (array_agg(o.routing_key ORDER BY o.seq))[1] AS first
FROM rehome.outbox o JOIN rehome.migrations m ON m.id = o.migration_id
WHERE o.sent_at IS NULL GROUP BY o.migration_id, m.instance_id;

-- name: is_sent
-- Whether a migration has no event that waits to be sent.
SELECT NOT EXISTS (SELECT FROM rehome.outbox WHERE migration_id = $1 AND sent_at IS NULL);

-- name: outbox_body
-- An event that was put into the outbox.
SELECT body FROM rehome.outbox WHERE event_id = $1;

-- name: lock_alone
-- Let one tool at a time do this; ends with the connection.
SELECT pg_advisory_lock(hashtextextended('rehome.tool:' || $1::text, 0));

-- name: unlock_alone
-- Let the next tool do it.
SELECT pg_advisory_unlock(hashtextextended('rehome.tool:' || $1::text, 0));

-- name: discard
-- Store a discarded dead letter, complete, with the reason; once, also where the tool died before it removed it.
INSERT INTO rehome.discards (message_id, handler, type, instance, migration_id, reason, error, why, body)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
WHERE NOT EXISTS (SELECT FROM rehome.discards
                  WHERE (message_id, handler, reason, error, why, body) = ($1, $2, $6, $7, $8, $9)
                    AND at > now() - interval '1 hour')
RETURNING seq;

-- name: discarded
-- Of these messages those that were discarded as dead letters.
SELECT DISTINCT message_id FROM rehome.discards WHERE message_id = ANY($1);

-- name: discards
-- Dead letters that were discarded, newest first.
SELECT at, message_id AS id, handler, type, instance, migration_id AS migration, reason, error, why
FROM rehome.discards ORDER BY at DESC LIMIT $1;

-- name: history_line
-- A line of a migration's history.
INSERT INTO rehome.history (migration_id, attempt, what, detail)
SELECT id, attempt, $2, $3 FROM rehome.migrations WHERE id = $1;

-- name: completed
-- Completed migrations whose source was not retired, with the end of its retention.
SELECT m.id, m.instance_id, m.attempt, m.ended_at,
       (SELECT value #>> '{}' FROM rehome.facts f
        WHERE f.migration_id = m.id AND f.attempt = m.attempt AND f.name = 'source_retained_until') AS until
FROM rehome.migrations m
WHERE m.state = 'completed' AND ($1::uuid IS NULL OR m.instance_id = $1 OR m.id = $1)
  AND NOT EXISTS (SELECT FROM rehome.facts f
                  WHERE f.migration_id = m.id AND f.attempt = m.attempt AND f.name = 'source_retired_at')
ORDER BY m.ended_at;

-- name: moved
-- Completed moves, newest first: how the data was copied, the database's size as it was rehearsed, and the downtime.
SELECT CASE WHEN given_up.name IS NULL THEN strategy.value ->> 'name' ELSE 'cold' END AS strategy,
       (rehearsal.value ->> 'database_bytes')::bigint AS bytes,
       extract(epoch FROM (up.value #>> '{}')::timestamptz - (down.value #>> '{}')::timestamptz)::float8 AS downtime
FROM (SELECT id, attempt, ended_at FROM rehome.migrations WHERE state = 'completed' ORDER BY ended_at DESC LIMIT $1) m
JOIN rehome.facts strategy ON (strategy.migration_id, strategy.attempt, strategy.name) = (m.id, m.attempt, 'strategy')
JOIN rehome.facts rehearsal ON (rehearsal.migration_id, rehearsal.attempt, rehearsal.name) = (m.id, m.attempt, 'rehearsal')
JOIN rehome.facts down ON (down.migration_id, down.attempt, down.name) = (m.id, m.attempt, 'stopped_at')
JOIN rehome.facts up ON (up.migration_id, up.attempt, up.name) = (m.id, m.attempt, 'healthy_at')
LEFT JOIN rehome.facts given_up
    ON (given_up.migration_id, given_up.attempt, given_up.name) = (m.id, m.attempt, 'warm_given_up')
ORDER BY m.ended_at DESC;

-- name: retired
-- Record that a completed migration's source was removed.
INSERT INTO rehome.facts (migration_id, attempt, name, value)
SELECT id, attempt, 'source_retired_at', to_jsonb(now()) FROM rehome.migrations WHERE id = $1
ON CONFLICT DO NOTHING;
