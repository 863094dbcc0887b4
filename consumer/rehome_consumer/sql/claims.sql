-- The statements of the session that holds a consumer's claims: one advisory lock per instance.

-- name: limits
-- The server ends a session that has sent nothing for so many milliseconds, where it can (from PostgreSQL 14 on).
SELECT set_config('idle_session_timeout', $1, false)
WHERE EXISTS (SELECT FROM pg_settings WHERE name = 'idle_session_timeout');

-- name: round
-- One round for all that is asked at this moment, in order: `claim` takes a lock unless another session holds it,
-- `release` gives it back, `ping` only answers.
SELECT CASE asked.act
    WHEN 'claim' THEN pg_try_advisory_lock(hashtextextended('rehome.instance:' || asked.instance_id::text, 0))
    WHEN 'release' THEN pg_advisory_unlock(hashtextextended('rehome.instance:' || asked.instance_id::text, 0))
END AS held
FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS asked (act, instance_id, n) ORDER BY asked.n;

-- name: round_with_lookups
-- The same, and for each claim that was taken what the journal has: `look_up` reads after the lock is held.
SELECT done.held, found.*
FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::integer[], $5::text[], $6::text[]) WITH ORDINALITY
    AS asked (act, instance_id, migration_id, attempt, step, before, n)
CROSS JOIN LATERAL (
    SELECT CASE asked.act
        WHEN 'claim' THEN pg_try_advisory_lock(hashtextextended('rehome.instance:' || asked.instance_id::text, 0))
        WHEN 'release' THEN pg_advisory_unlock(hashtextextended('rehome.instance:' || asked.instance_id::text, 0))
    END AS held
) AS done
LEFT JOIN LATERAL rehome.look_up(
    asked.act = 'claim' AND done.held, asked.migration_id, asked.attempt, asked.step, asked.before
) AS found ON true
ORDER BY asked.n;
