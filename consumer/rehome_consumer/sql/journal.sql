-- The journal's statements: migrations, steps, facts and the outbox, all in schema rehome.

-- name: version
-- The present version of the schema; NULL before the first.
SELECT max(version) FROM rehome.schema_version;

-- name: lock_schema
-- Let one consumer at a time create or change the tables; ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('rehome.schema', 0));

-- name: make_schema
-- The schema, and the table of its versions.
CREATE SCHEMA IF NOT EXISTS rehome;
CREATE TABLE IF NOT EXISTS rehome.schema_version (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: set_version
-- Record that a version's statements were applied.
INSERT INTO rehome.schema_version (version) VALUES ($1);

-- name: migration
-- One migration.
SELECT id, instance_id, attempt, state, past_pivot, trigger, reason, created_at, updated_at, token, ended_at
FROM rehome.migrations WHERE id = $1;

-- name: open_of_instance
-- The migration that holds an instance, if any.
SELECT id FROM rehome.migrations WHERE instance_id = $1 AND ended_at IS NULL;

-- name: open
-- A new migration, with the first line of its history; no row if it exists or if another one holds the instance. The
-- sixth argument is the replay that opens it, if one does, the eighth its priority. Upgrades that waited are forgotten as
-- `forget_waiting_of` does.
WITH opened AS (
    INSERT INTO rehome.migrations (id, instance_id, trigger, trigger_id, to_plan, replays, priority)
    VALUES ($1, $2, $3, $4, $5, array_remove(ARRAY[$6::uuid], NULL), $8) ON CONFLICT DO NOTHING
    RETURNING id, instance_id, attempt, state, past_pivot, trigger, reason, created_at, updated_at, token, ended_at
), line AS (
    INSERT INTO rehome.history (migration_id, attempt, what, detail) SELECT id, attempt, 'opened', $7 FROM opened
), forgotten AS (
    DELETE FROM rehome.waiting w USING opened o
    WHERE w.migration_id = o.id OR (w.instance_id = o.instance_id AND w.next_try_at < now() - interval '1 hour')
)
SELECT * FROM opened;

-- name: put_off
-- An upgrade that waits for the end of another migration of its instance, and in how many seconds it comes
-- again. Nothing where none is open, or where this is a copy (the last argument: no replay) of one that was opened.
INSERT INTO rehome.waiting (migration_id, instance_id, event_id, to_plan, behind, next_try_at)
SELECT $1, $2, $3, $4, m.id, now() + make_interval(secs => $5)
FROM rehome.migrations m
WHERE m.instance_id = $2 AND m.ended_at IS NULL AND m.id <> $1
    AND ($6 OR NOT EXISTS (SELECT FROM rehome.migrations WHERE id = $1))
ON CONFLICT (migration_id) DO UPDATE
SET event_id = excluded.event_id, behind = excluded.behind, updated_at = now(), next_try_at = excluded.next_try_at;

-- name: forget_waiting_of
-- This upgrade was opened. Another of its instance that should have come back an hour ago is deleted, too: its event is
-- lost.
DELETE FROM rehome.waiting
WHERE migration_id = $1 OR (instance_id = $2 AND next_try_at < now() - interval '1 hour');

-- name: may_reopen
-- Lock the migration if it was rolled back and this replay has not opened an attempt of it before.
SELECT attempt FROM rehome.migrations WHERE id = $1 AND state = 'rolled_back' AND NOT $2 = ANY(replays) FOR UPDATE;

-- name: reopen
-- The next attempt of a migration that was rolled back.
UPDATE rehome.migrations
SET attempt = attempt + 1, state = 'open', past_pivot = false, ended_at = NULL, reason = NULL, updated_at = now(),
    token = token + 1, replays = replays || $2::uuid
WHERE id = $1 RETURNING attempt;

-- name: step
-- One step of one attempt, with the migration's present token.
SELECT s.migration_id, s.attempt, s.step, s.state, s.runs, s.tries, s.deaths, s.replays, s.dead_lettered, s.error, m.token
FROM rehome.steps s JOIN rehome.migrations m ON m.id = s.migration_id
WHERE s.migration_id = $1 AND s.attempt = $2 AND s.step = $3;

-- name: take_token
-- The next fencing token of a migration, if it still has the one given: a run with an older one can write no more.
UPDATE rehome.migrations SET token = token + 1, updated_at = now() WHERE id = $1 AND token = $2 RETURNING token;

-- name: begin
-- Take the next token and count a run of a step, if the migration still has the token given: no row otherwise. A run that
-- is still recorded as running has died. The fifth argument is the replay that asks for it, if one does: it resets the
-- counts, once. The step is no dead letter any more. Events that the broker has confirmed ride along.
WITH taken AS (
    UPDATE rehome.migrations SET token = token + 1, updated_at = now() WHERE id = $1 AND token = $2 RETURNING id, token
), alive AS (
    DELETE FROM rehome.dead_letters d USING taken
    WHERE d.migration_id = taken.id AND d.attempt = $3 AND d.step = $4
), sent AS (
    UPDATE rehome.outbox o SET sent_at = now() FROM unnest($6::bigint[], $7::integer[]) AS confirmed (seq, revision)
    WHERE o.seq = confirmed.seq AND o.revision = confirmed.revision
)
INSERT INTO rehome.steps AS s (migration_id, attempt, step, state, runs, replays)
SELECT id, $3, $4, 'running', 1, array_remove(ARRAY[$5::uuid], NULL) FROM taken
ON CONFLICT (migration_id, attempt, step) DO UPDATE
SET state = 'running', next_try_at = NULL, tried_at = now(), progress_done = NULL, progress_total = NULL,
    runs = CASE WHEN NOT excluded.replays <@ s.replays THEN 1 ELSE s.runs + 1 END,
    tries = CASE WHEN NOT excluded.replays <@ s.replays THEN 0 ELSE s.tries END,
    deaths = CASE WHEN NOT excluded.replays <@ s.replays THEN 0 ELSE s.deaths + (s.state = 'running')::integer END,
    error = CASE WHEN NOT excluded.replays <@ s.replays THEN NULL ELSE s.error END,
    dead_lettered = s.dead_lettered AND excluded.replays <@ s.replays,
    replays = CASE WHEN NOT excluded.replays <@ s.replays THEN s.replays || excluded.replays ELSE s.replays END
RETURNING s.migration_id, s.attempt, s.step, s.state, s.runs, s.tries, s.deaths, s.replays, s.dead_lettered, s.error,
    (SELECT token FROM taken);

-- name: reset_step
-- Reset a step's runs and tries, once for each replay (fourth argument).
UPDATE rehome.steps
SET state = 'waiting', runs = 0, tries = 0, deaths = 0, error = NULL, dead_lettered = false, replays = replays || $4::uuid
WHERE migration_id = $1 AND attempt = $2 AND step = $3 AND NOT $4 = ANY(replays);

-- name: hold
-- Lock the migration's row if this token is still the newest; no row otherwise.
SELECT id FROM rehome.migrations WHERE id = $1 AND token = $2 FOR UPDATE;

-- name: finish
-- The step is done, the migration has a new state (the fifth argument says whether it is over), the event is in the
-- outbox, left to this consumer for so many seconds (NULL: to nobody): if the token is still the newest, else no row.
-- Returns what was put there, and whether earlier events of the migration must be sent first.
WITH taken AS (
    UPDATE rehome.migrations
    SET token = token + 1, state = $3, reason = coalesce($4, reason), updated_at = now(),
        ended_at = CASE WHEN $5 THEN now() END, past_pivot = past_pivot OR $6
    WHERE id = $1 AND token = $2 RETURNING id
), done AS (
    UPDATE rehome.steps s SET state = 'done', error = NULL, next_try_at = NULL, done_at = now()
    FROM taken WHERE s.migration_id = taken.id AND s.attempt = $7 AND s.step = $8
), line AS (
    INSERT INTO rehome.history (migration_id, attempt, what, detail) SELECT id, $7, $8 || ' done', $4 FROM taken
), put AS (
    INSERT INTO rehome.outbox AS o (migration_id, event_id, exchange, routing_key, body, reserved_until)
    SELECT taken.id, e.id, $9, $10, e.body, now() + make_interval(secs => $11)
    FROM taken, unnest($12::uuid[], $13::bytea[]) WITH ORDINALITY AS e (id, body, n) ORDER BY e.n
    ON CONFLICT (event_id) DO UPDATE SET sent_at = NULL, body = excluded.body, revision = o.revision + 1,
        reserved_until = excluded.reserved_until
    RETURNING event_id, seq, revision
)
SELECT ARRAY(SELECT event_id FROM put ORDER BY seq) AS ids, ARRAY(SELECT seq FROM put ORDER BY seq) AS seqs,
    ARRAY(SELECT revision FROM put ORDER BY seq) AS revisions,
    EXISTS (SELECT FROM rehome.outbox o WHERE o.migration_id = taken.id AND o.sent_at IS NULL
        AND (o.reserved_until IS NULL OR o.reserved_until < now())) AS earlier
FROM taken;

-- name: finish_migration
-- The migration's new state; the fourth argument says whether it is over.
UPDATE rehome.migrations
SET state = $2, reason = coalesce($3, reason), updated_at = now(),
    ended_at = CASE WHEN $4 THEN now() END, past_pivot = past_pivot OR $5
WHERE id = $1;

-- name: put
-- An event into the outbox, for whichever relay comes first; one that is already there is sent again.
INSERT INTO rehome.outbox AS o (migration_id, event_id, exchange, routing_key, body)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (event_id) DO UPDATE
SET sent_at = NULL, body = excluded.body, revision = o.revision + 1, reserved_until = NULL;

-- name: notify
-- Wake the relays.
SELECT pg_notify('rehome_outbox', $1::text);

-- name: history_line
-- A line of a migration's history.
INSERT INTO rehome.history (migration_id, attempt, what, detail) VALUES ($1, $2, $3, $4);

-- name: wait
-- Why a step did not succeed, and in how many seconds it is tried again.
UPDATE rehome.steps
SET state = 'waiting', tries = tries + 1, error = $4, next_try_at = now() + make_interval(secs => $5)
WHERE migration_id = $1 AND attempt = $2 AND step = $3;

-- name: interruption_line
-- A line of a migration's history: why a step waits although no try was counted. Not the same reason twice in a row.
INSERT INTO rehome.history (migration_id, attempt, what, detail)
SELECT m.id, s.attempt, s.step || ' waits', $5
FROM rehome.steps s JOIN rehome.migrations m ON m.id = s.migration_id
WHERE s.migration_id = $1 AND s.attempt = $2 AND s.step = $3 AND m.token = $4 AND s.error IS DISTINCT FROM $5;

-- name: interrupted
-- A run that was interrupted: why, and in how many seconds it comes back. Where a later one was started meanwhile (the
-- token is newer), that one has counted a death, which is undone.
UPDATE rehome.steps s
SET state = CASE WHEN m.token = $4 THEN 'waiting' ELSE s.state END,
    deaths = CASE WHEN m.token = $4 THEN s.deaths ELSE greatest(s.deaths - 1, 0) END,
    error = CASE WHEN m.token = $4 THEN $5 ELSE s.error END,
    next_try_at = CASE WHEN m.token = $4 THEN now() + make_interval(secs => $6) ELSE s.next_try_at END
FROM rehome.migrations m
WHERE m.id = s.migration_id AND s.migration_id = $1 AND s.attempt = $2 AND s.step = $3;

-- name: fail_step
-- The step has failed for good.
UPDATE rehome.steps SET state = 'failed', tries = tries + 1, error = $4, next_try_at = NULL
WHERE migration_id = $1 AND attempt = $2 AND step = $3;

-- name: dead_letter_sent
-- The dead letter of a failed step is confirmed by the broker.
UPDATE rehome.steps SET dead_lettered = true
WHERE migration_id = $1 AND attempt = $2 AND step = $3 AND state = 'failed';

-- name: dead_lettered
-- A delivery to a step is a dead letter, or will be if its consumer dies now. Attempt NULL: the present one.
INSERT INTO rehome.dead_letters (migration_id, attempt, step, message_id, reason)
SELECT id, coalesce($2, attempt), $3, $4, $5 FROM rehome.migrations WHERE id = $1
ON CONFLICT (migration_id, attempt, step) DO UPDATE
SET message_id = excluded.message_id, reason = excluded.reason, at = now();

-- name: not_dead_lettered
-- It is no dead letter, or its step is started again. Attempt NULL: all of them.
DELETE FROM rehome.dead_letters WHERE migration_id = $1 AND ($2::integer IS NULL OR attempt = $2) AND step = $3;

-- name: remember
-- Store a fact unless one of that name is stored, if the token is still the newest, else no row; returns the one that is
-- stored. Both columns are NULL where another run has stored it just now: `recall` has it.
WITH held AS MATERIALIZED (
    SELECT id FROM rehome.migrations WHERE id = $1 AND token = $6 FOR UPDATE
), stored AS (
    INSERT INTO rehome.facts (migration_id, attempt, name, value, secret) SELECT id, $2, $3, $4, $5 FROM held
    ON CONFLICT DO NOTHING RETURNING value, secret
)
SELECT f.value, f.secret FROM held LEFT JOIN (
    SELECT value, secret FROM stored UNION ALL
    SELECT value, secret FROM rehome.facts WHERE migration_id = $1 AND attempt = $2 AND name = $3
) f ON true;

-- name: recall
-- A fact of an attempt.
SELECT value, secret FROM rehome.facts WHERE migration_id = $1 AND attempt = $2 AND name = $3;

-- name: progress
-- How far a long step is.
UPDATE rehome.steps SET progress_done = $4, progress_total = $5
WHERE migration_id = $1 AND attempt = $2 AND step = $3;

-- name: started
-- The steps of an attempt that were started.
SELECT step FROM rehome.steps WHERE migration_id = $1 AND attempt = $2;

-- name: seconds_per_step
-- Seconds from the first start to the end of each finished step of an attempt.
SELECT step, extract(epoch FROM done_at - started_at)::float8 AS seconds
FROM rehome.steps WHERE migration_id = $1 AND attempt = $2 AND done_at IS NOT NULL ORDER BY done_at;

-- name: unsent
-- Migrations with unsent events that are not left to the consumer which committed them, oldest first.
SELECT migration_id FROM rehome.outbox WHERE sent_at IS NULL AND (reserved_until IS NULL OR reserved_until < now())
GROUP BY migration_id ORDER BY min(seq) LIMIT 500;

-- name: oldest_unsent
-- Age in seconds of the oldest unsent event; NULL when there is none.
SELECT extract(epoch FROM now() - min(created_at))::float8 FROM rehome.outbox WHERE sent_at IS NULL;

-- name: try_sending
-- Let one relay at a time send a migration's events; ends with the transaction.
SELECT pg_try_advisory_xact_lock(hashtextextended('rehome.outbox:' || $1::text, 0));

-- name: unsent_of
-- A migration's unsent events, in order.
SELECT seq, migration_id, event_id, exchange, routing_key, body, revision FROM rehome.outbox
WHERE migration_id = $1 AND sent_at IS NULL ORDER BY seq;

-- name: sent
-- The broker has confirmed these, in these revisions.
UPDATE rehome.outbox o SET sent_at = now() FROM unnest($1::bigint[], $2::integer[]) AS confirmed (seq, revision)
WHERE o.seq = confirmed.seq AND o.revision = confirmed.revision;

-- name: purge
-- Delete events sent longer ago than this many seconds, a batch at a time. Those of a migration that is not over stay:
-- one of them may have to be sent again. One that is over waits for no slot any more.
WITH over AS (
    DELETE FROM rehome.slot_waiters w USING rehome.migrations m WHERE m.id = w.migration_id AND m.ended_at IS NOT NULL
)
DELETE FROM rehome.outbox WHERE seq IN (
    SELECT o.seq FROM rehome.outbox o JOIN rehome.migrations m ON m.id = o.migration_id
    WHERE o.sent_at < now() - make_interval(secs => $1) AND m.ended_at IS NOT NULL LIMIT 1000
);

-- name: lock_slots
-- Let one migration at a time look at slots of these resources, or take them; ends with the transaction. Sorted: nobody
-- waits for one who waits for it.
SELECT pg_advisory_xact_lock(hashtextextended('rehome.slots:' || resource, 0)) FROM unnest($1::text[]) AS r (resource);

-- name: slots
-- Of these resources whether this attempt of the migration has a slot, and how many others have: not those that are over,
-- nor those that wait for an operator; and commands (see `slots_of_commands`).
SELECT r.resource,
    EXISTS (SELECT FROM rehome.slots t WHERE (t.resource, t.migration_id, t.attempt) = (r.resource, $2, $3)) AS mine,
    (SELECT count(*) FROM rehome.slots t JOIN rehome.migrations m ON m.id = t.migration_id AND m.attempt = t.attempt
     WHERE t.resource = r.resource AND t.migration_id <> $2 AND m.ended_at IS NULL AND m.state <> 'failed')
    + (SELECT count(*) FROM pg_locks AS l, hashtextextended('rehome.slots.command:' || r.resource, 0) AS key
       WHERE l.locktype = 'advisory' AND l.granted AND l.mode = 'ShareLock' AND l.objsubid = 1
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND l.classid = ((key >> 32) & 4294967295)::oid AND l.objid = (key & 4294967295)::oid) AS taken
FROM unnest($1::text[]) AS r (resource);

-- name: ahead
-- Those who wait for any of these resources and come before this attempt of the migration, in order. Overdue is who was
-- called longer ago than it may be away between two looks, and a grace. One who was kept from looking itself judges
-- nobody: then its consumers may have had no time for the others either.
SELECT l.migration_id, l.resources, l.places,
    my.punctual AND coalesce(l.called_at + l.looks_within + $4::interval < clock_timestamp(), false) AS overdue
FROM (
    SELECT rehome.rank(coalesce(w.since, clock_timestamp()), m.priority) AS rank,
        coalesce(w.looked_at + 2 * w.looks_within + $4::interval > clock_timestamp(), false) AS punctual
    FROM rehome.migrations m LEFT JOIN rehome.slot_waiters w
        ON (w.migration_id, w.attempt) = (m.id, m.attempt) AND w.resources && $1::text[]
    WHERE m.id = $2 AND m.attempt = $3
) AS my, rehome.line l
WHERE l.resources && $1::text[] AND l.migration_id <> $2 AND (l.rank, l.migration_id) < (my.rank, $2)
ORDER BY l.rank, l.migration_id;

-- name: get_in_line
-- This attempt of the migration waits for these resources, with so many places each, and has looked; its age counts from
-- its first look for any of them. Those of the seventh argument are called, those of the eighth have left the line.
-- Returns how many are before it, and how many others there are.
WITH mine AS (
    SELECT m.id, coalesce(w.since, clock_timestamp()) AS since,
        rehome.rank(coalesce(w.since, clock_timestamp()), m.priority) AS rank
    FROM rehome.migrations m LEFT JOIN rehome.slot_waiters w
        ON (w.migration_id, w.attempt) = (m.id, m.attempt) AND w.resources && $3::text[]
    WHERE m.id = $1
), others AS (
    SELECT count(*) AS number, count(*) FILTER (WHERE (l.rank, l.migration_id) < (mine.rank, mine.id)) AS ahead
    FROM mine, rehome.line l
    WHERE l.resources && $3::text[] AND l.migration_id <> mine.id AND l.migration_id <> ALL($8::uuid[])
), called AS (
    UPDATE rehome.slot_waiters SET called_at = clock_timestamp()
    WHERE migration_id = ANY($7::uuid[]) AND called_at IS NULL
), gone AS (
    UPDATE rehome.slot_waiters SET away = true, called_at = NULL WHERE migration_id = ANY($8::uuid[])
), placed AS (
    INSERT INTO rehome.slot_waiters (migration_id, attempt, resources, places, since, looked_at, looks_within)
    SELECT mine.id, $2::integer, $3::text[], $4::integer[], mine.since, clock_timestamp(), CASE WHEN others.ahead < $9::bigint THEN $5::interval ELSE $6::interval END
    FROM mine, others
    ON CONFLICT (migration_id) DO UPDATE
    SET attempt = excluded.attempt, resources = excluded.resources, places = excluded.places, since = excluded.since,
        looked_at = excluded.looked_at, looks_within = excluded.looks_within, called_at = NULL, away = false
)
SELECT ahead, number FROM others;

-- name: slots_of_commands
-- How many commands have a slot of a resource: sessions that hold its advisory lock (its 64 bits are in two columns).
SELECT count(*) FROM pg_locks AS l, hashtextextended('rehome.slots.command:' || $1::text, 0) AS key
WHERE l.locktype = 'advisory' AND l.granted AND l.mode = 'ShareLock' AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = ((key >> 32) & 4294967295)::oid AND l.objid = (key & 4294967295)::oid;

-- name: has_slots
-- Whether there is a table of slots.
SELECT to_regclass('rehome.slots') IS NOT NULL;

-- name: hold_command_slot
-- This session's slot of a resource, until it gives it back or ends.
SELECT pg_advisory_lock_shared(hashtextextended('rehome.slots.command:' || $1::text, 0));

-- name: release_command_slot
-- Release it.
SELECT pg_advisory_unlock_shared(hashtextextended('rehome.slots.command:' || $1::text, 0));

-- name: acquire_slots
-- This migration's slots of these resources: it waits no more. Those of the fourth argument have left the line.
WITH placed AS (
    DELETE FROM rehome.slot_waiters WHERE migration_id = $2
), gone AS (
    UPDATE rehome.slot_waiters SET away = true, called_at = NULL WHERE migration_id = ANY($4::uuid[])
)
INSERT INTO rehome.slots (resource, migration_id, attempt) SELECT resource, $2, $3 FROM unnest($1::text[]) AS r (resource)
ON CONFLICT (resource, migration_id) DO UPDATE SET attempt = excluded.attempt;

-- name: release_slots
-- Release the slots of these resources, and leave the line, if the token is still the newest, else no row. What a
-- consumer of an earlier release has noted ("next ...") goes with them.
WITH held AS MATERIALIZED (
    SELECT id FROM rehome.migrations WHERE id = $1 AND token = $2 FOR UPDATE
), released AS (
    DELETE FROM rehome.slots s USING held
    WHERE s.migration_id = held.id AND regexp_replace(s.resource, '^next ', '') = ANY($3::text[])
), placed AS (
    UPDATE rehome.slot_waiters w SET away = true, called_at = NULL FROM held WHERE w.migration_id = held.id AND NOT w.away
)
SELECT id FROM held;

-- name: some_secrets
-- Secrets of open migrations, newest first, as many as are asked for. Those of attempts that are over may be of an
-- earlier key.
SELECT f.migration_id, f.attempt, f.name, f.secret
FROM rehome.facts f JOIN rehome.migrations m ON m.id = f.migration_id AND m.attempt = f.attempt
WHERE m.ended_at IS NULL AND f.secret IS NOT NULL ORDER BY m.created_at DESC LIMIT $1;

-- name: put_place
-- The mark of a place, unless it has one.
INSERT INTO rehome.places (name, mark) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: place
-- The mark of a place.
SELECT mark FROM rehome.places WHERE name = $1;

-- name: earlier_consumers
-- Connections of consumers of an earlier generation, by the names that these give themselves: the first had no number.
SELECT count(*) FROM pg_catalog.pg_stat_activity
WHERE datname = current_database()
  AND CASE WHEN application_name ~ '^rehome [0-9]{1,6}$' THEN substr(application_name, 8)::integer < $1
           ELSE application_name = 'rehome' END;

-- name: paused
-- The pause that is in force; no row: moves go on.
SELECT last.at, last.by, last.why
FROM (SELECT * FROM rehome.pauses ORDER BY seq DESC LIMIT 1) AS last WHERE last.paused;
