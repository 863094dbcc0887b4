-- The tables of schema rehome. The consumer creates them at start, in order; a released version is never changed, only
-- followed by the next.

-- name: v1
-- Migrations, their steps, their facts, and the outbox.
CREATE TABLE rehome.migrations (
    id uuid PRIMARY KEY,
    instance_id uuid NOT NULL,
    attempt integer NOT NULL DEFAULT 1,
    state text NOT NULL DEFAULT 'open',
    past_return boolean NOT NULL DEFAULT false,
    token bigint NOT NULL DEFAULT 0,
    trigger bytea NOT NULL,
    trigger_id uuid NOT NULL,
    replays uuid[] NOT NULL DEFAULT '{}',
    to_plan text NOT NULL,
    note text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE UNIQUE INDEX one_open_migration_per_instance ON rehome.migrations (instance_id) WHERE ended_at IS NULL;
CREATE INDEX migrations_by_time ON rehome.migrations (created_at);
CREATE TABLE rehome.steps (
    migration_id uuid NOT NULL REFERENCES rehome.migrations ON DELETE CASCADE,
    attempt integer NOT NULL,
    step text NOT NULL,
    state text NOT NULL,
    runs integer NOT NULL DEFAULT 0,
    tries integer NOT NULL DEFAULT 0,
    deaths integer NOT NULL DEFAULT 0,
    replays uuid[] NOT NULL DEFAULT '{}',
    error text,
    dead boolean NOT NULL DEFAULT false,
    next_try_at timestamptz,
    begun_at timestamptz NOT NULL DEFAULT now(),
    tried_at timestamptz NOT NULL DEFAULT now(),
    done_at timestamptz,
    progress_done bigint,
    progress_total bigint,
    PRIMARY KEY (migration_id, attempt, step)
);
CREATE TABLE rehome.facts (
    migration_id uuid NOT NULL REFERENCES rehome.migrations ON DELETE CASCADE,
    attempt integer NOT NULL,
    name text NOT NULL,
    value jsonb,
    secret bytea,
    PRIMARY KEY (migration_id, attempt, name)
);
CREATE TABLE rehome.outbox (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration_id uuid NOT NULL REFERENCES rehome.migrations ON DELETE CASCADE,
    event_id uuid NOT NULL UNIQUE,
    exchange text NOT NULL,
    routing_key text NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz
);
CREATE INDEX outbox_unsent ON rehome.outbox (migration_id, seq) WHERE sent_at IS NULL;
CREATE TABLE rehome.turns (
    resource text NOT NULL,
    migration_id uuid NOT NULL REFERENCES rehome.migrations ON DELETE CASCADE,
    attempt integer NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (resource, migration_id)
);
CREATE TABLE rehome.history (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration_id uuid NOT NULL REFERENCES rehome.migrations ON DELETE CASCADE,
    attempt integer NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    what text NOT NULL,
    detail text
);
CREATE INDEX history_by_migration ON rehome.history (migration_id, seq);
CREATE TABLE rehome.discards (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    message_id text NOT NULL,
    handler text NOT NULL,
    type text NOT NULL,
    instance text,
    migration_id uuid,
    reason text NOT NULL,
    error text NOT NULL,
    why text NOT NULL,
    body bytea NOT NULL
);

-- name: v2
-- Upgrades that wait for the end of another migration of their instance: which, since when, until when.
CREATE TABLE rehome.waiting (
    migration_id uuid PRIMARY KEY,
    instance_id uuid NOT NULL,
    event_id uuid NOT NULL,
    to_plan text NOT NULL,
    behind uuid NOT NULL REFERENCES rehome.migrations ON DELETE CASCADE,
    since timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    next_try_at timestamptz NOT NULL
);

-- name: v3
-- Deliveries to steps of open migrations that are dead letters, or would be if their consumer died.
CREATE TABLE rehome.letters (
    migration_id uuid NOT NULL REFERENCES rehome.migrations ON DELETE CASCADE,
    attempt integer NOT NULL,
    step text NOT NULL,
    message_id text NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (migration_id, attempt, step)
);

-- name: v4
-- The field's words: point of no return (pivot), slots, dead letters, started; and why an upgrade needed nothing.
ALTER TABLE rehome.migrations RENAME COLUMN past_return TO past_pivot;
ALTER TABLE rehome.migrations RENAME COLUMN note TO reason;
ALTER TABLE rehome.steps RENAME COLUMN begun_at TO started_at;
ALTER TABLE rehome.steps RENAME COLUMN dead TO dead_lettered;
ALTER TABLE rehome.waiting RENAME COLUMN seen_at TO updated_at;
ALTER TABLE rehome.turns RENAME TO slots;
ALTER TABLE rehome.slots RENAME COLUMN taken_at TO acquired_at;
ALTER TABLE rehome.letters RENAME TO dead_letters;
-- Facts by the names that rehome_consumer/facts.py gives them.
UPDATE rehome.facts AS f SET name = renamed.now
FROM (VALUES ('record', 'platform_record'), ('up_again_at', 'restarted_at'),
             ('provisioning', 'server_requested'), ('provisioned_now', 'server_provisioned'),
             ('giving_back', 'server_return_requested'),
             ('letting_in', 'access_opened'), ('nothing_written', 'access_revoked'),
             ('before_resize', 'limits_before_resize'),
             ('backup_manifest', 'backup_manifest_sha256'), ('conf_changed', 'conf_keys_changed')
     ) AS renamed (before, now)
WHERE f.name = renamed.before;

-- name: v5
-- Where backups are: the mark of the place that all consumers share. One row.
CREATE TABLE rehome.places (
    name text PRIMARY KEY,
    mark uuid NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);

-- name: v6
-- A step costs fewer round trips. An event is left to the consumer that committed it for some seconds, and a confirm of
-- an earlier revision of it says nothing. `look_up` is VOLATILE: so it reads what was committed when its first argument,
-- the lock, was computed, not what was committed when the statement began.
ALTER TABLE rehome.outbox ADD COLUMN reserved_until timestamptz, ADD COLUMN revision integer NOT NULL DEFAULT 1;
CREATE FUNCTION rehome.look_up(
    held boolean, wanted_migration uuid, wanted_attempt integer, wanted_step text, wanted_before text
)
RETURNS TABLE (
    id uuid, instance_id uuid, attempt integer, state text, past_pivot boolean, trigger bytea, reason text,
    created_at timestamptz, updated_at timestamptz, token bigint, ended_at timestamptz,
    step_attempt integer, step_state text, step_runs integer, step_tries integer, step_deaths integer,
    step_replays uuid[], step_dead_lettered boolean, step_error text,
    before_state text, before_runs integer, before_tries integer, before_deaths integer,
    before_replays uuid[], before_dead_lettered boolean, before_error text
)
LANGUAGE sql VOLATILE AS $$
    SELECT m.id, m.instance_id, m.attempt, m.state, m.past_pivot, m.trigger, m.reason,
        m.created_at, m.updated_at, m.token, m.ended_at,
        coalesce(wanted_attempt, m.attempt), s.state, s.runs, s.tries, s.deaths, s.replays, s.dead_lettered, s.error,
        b.state, b.runs, b.tries, b.deaths, b.replays, b.dead_lettered, b.error
    FROM rehome.migrations m
    LEFT JOIN rehome.steps s ON s.migration_id = m.id AND s.attempt = coalesce(wanted_attempt, m.attempt)
        AND s.step = wanted_step
    LEFT JOIN rehome.steps b ON b.migration_id = m.id AND b.attempt = coalesce(wanted_attempt, m.attempt)
        AND b.step = wanted_before
    WHERE held AND m.id = wanted_migration
$$;

-- name: v7
-- What operators have ordered for all consumers: that no move begins, and that moves go on. The last line counts.
CREATE TABLE rehome.pauses (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    paused boolean NOT NULL,
    by text NOT NULL,
    why text NOT NULL DEFAULT ''
);

-- name: v8
-- What consumers have logged in steps, as JSON. No reference to the migration: writing it must lock no row of the engine's.
CREATE TABLE rehome.log_lines (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration_id uuid NOT NULL,
    at timestamptz NOT NULL,
    line text NOT NULL
);
CREATE INDEX log_lines_by_migration ON rehome.log_lines (migration_id, seq);
CREATE INDEX log_lines_by_time ON rehome.log_lines USING brin (at);

-- name: v9
-- Who waits for slots, in line. A migration waits for all slots of a step together, so it has one row here, from its first
-- look until it has them; `away` it keeps its age, and nobody waits for it: it waits for something else, or was called,
-- since slots were free, and did not look within its time. `rank` is what a level of priority is worth: half a day.
ALTER TABLE rehome.migrations ADD COLUMN priority smallint NOT NULL DEFAULT 4 CHECK (priority BETWEEN 0 AND 9);
CREATE TABLE rehome.slot_waiters (
    migration_id uuid PRIMARY KEY REFERENCES rehome.migrations ON DELETE CASCADE,
    attempt integer NOT NULL,
    resources text[] NOT NULL,
    places integer[] NOT NULL,
    since timestamptz NOT NULL,
    looked_at timestamptz NOT NULL,
    looks_within interval NOT NULL,
    called_at timestamptz,
    away boolean NOT NULL DEFAULT false
);
CREATE FUNCTION rehome.rank(since timestamptz, priority integer) RETURNS timestamptz
LANGUAGE sql STABLE AS $$ SELECT since - priority * interval '12 hours' $$;
CREATE VIEW rehome.line AS
SELECT w.migration_id, w.resources, w.places, rehome.rank(w.since, m.priority) AS rank, w.looks_within, w.called_at
FROM rehome.slot_waiters w JOIN rehome.migrations m ON m.id = w.migration_id AND m.attempt = w.attempt
WHERE NOT w.away AND m.ended_at IS NULL AND m.state NOT IN ('failing', 'failed')
    AND NOT w.resources <@ ARRAY(
        SELECT s.resource FROM rehome.slots s WHERE s.migration_id = w.migration_id AND s.attempt = w.attempt
    );

-- name: v10
-- `look_up` plans its query once in a session; one in SQL is planned at every call, which took longer than the rest of the
-- round. Still VOLATILE: it reads what was committed when it was called, which is after the lock was taken.
CREATE OR REPLACE FUNCTION rehome.look_up(
    held boolean, wanted_migration uuid, wanted_attempt integer, wanted_step text, wanted_before text
)
RETURNS TABLE (
    id uuid, instance_id uuid, attempt integer, state text, past_pivot boolean, trigger bytea, reason text,
    created_at timestamptz, updated_at timestamptz, token bigint, ended_at timestamptz,
    step_attempt integer, step_state text, step_runs integer, step_tries integer, step_deaths integer,
    step_replays uuid[], step_dead_lettered boolean, step_error text,
    before_state text, before_runs integer, before_tries integer, before_deaths integer,
    before_replays uuid[], before_dead_lettered boolean, before_error text
)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF held AND wanted_migration IS NOT NULL THEN
        RETURN QUERY
        SELECT m.id, m.instance_id, m.attempt, m.state, m.past_pivot, m.trigger, m.reason,
            m.created_at, m.updated_at, m.token, m.ended_at,
            coalesce(wanted_attempt, m.attempt), s.state, s.runs, s.tries, s.deaths, s.replays, s.dead_lettered, s.error,
            b.state, b.runs, b.tries, b.deaths, b.replays, b.dead_lettered, b.error
        FROM rehome.migrations m
        LEFT JOIN rehome.steps s ON s.migration_id = m.id AND s.attempt = coalesce(wanted_attempt, m.attempt)
            AND s.step = wanted_step
        LEFT JOIN rehome.steps b ON b.migration_id = m.id AND b.attempt = coalesce(wanted_attempt, m.attempt)
            AND b.step = wanted_before
        WHERE m.id = wanted_migration;
    END IF;
END
$$;
