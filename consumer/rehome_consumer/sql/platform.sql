-- The platform's own tables. rehome reads and updates rows; it adds no row, no column and no table.

-- name: instance
-- The instance, as far as a migration needs it.
SELECT id, customer_id, name, status, database_name, db_name, db_host, db_port, db_user, db_type, db_server_id,
       plan_tier, cpu_limit, memory_limit, storage_limit, service_name, service_id, internal_url, external_url,
       error_message
FROM instances
WHERE id = $1;

-- name: some_instances
-- Instances that should have a directory by now, newest first.
SELECT id, customer_id, name, status, database_name, db_name, db_host, db_port, db_user, db_type, db_server_id,
       plan_tier, cpu_limit, memory_limit, storage_limit, service_name, service_id, internal_url, external_url,
       error_message
FROM instances
WHERE status NOT IN ('terminated', 'creating', 'error')
ORDER BY created_at DESC
LIMIT $1;

-- name: others_with_login
-- Instances on a server ($2, at $3:$4) whose record names this db_user ($5), without the instance $1.
SELECT id, customer_id, name, status, database_name, db_name, db_host, db_port, db_user, db_type, db_server_id,
       plan_tier, cpu_limit, memory_limit, storage_limit, service_name, service_id, internal_url, external_url,
       error_message
FROM instances
WHERE id <> $1 AND db_user = $5 AND status <> 'terminated'
  AND (db_server_id = $2 OR (db_server_id IS NULL AND db_host = $3 AND coalesce(db_port, 5432) = $4))
ORDER BY name, id
LIMIT 20;

-- name: residents
-- Instances whose record says that their database is on a server ($1, at $2:$3): by its id, else (none is named, or one
-- that does not exist) by host and port. `ambiguous`: several servers are registered at that address.
SELECT i.id, customer_id, subscription_id, i.name, i.status, database_name, db_name, db_host, db_port, db_user, db_type,
       db_server_id, plan_tier, cpu_limit, memory_limit, storage_limit, service_name, service_id, internal_url,
       external_url, error_message,
       i.db_server_id IS DISTINCT FROM $1
           AND (SELECT count(*) FROM db_servers o
                WHERE o.host = i.db_host AND (i.db_port IS NULL OR coalesce(o.port, 5432) = i.db_port)) > 1 AS ambiguous
FROM instances i
WHERE i.db_server_id = $1
   OR (i.db_host = $2 AND (i.db_port IS NULL OR i.db_port = $3)
       AND NOT EXISTS (SELECT FROM db_servers o WHERE o.id = i.db_server_id))
ORDER BY i.name, i.id;

-- name: server
-- A database server by its id.
SELECT id, name, host, coalesce(port, 5432) AS port, server_type, status, health_status, postgres_version,
       coalesce(admin_user, 'postgres') AS admin_user, coalesce(admin_password, '') AS admin_password,
       dedicated_to_instance_id
FROM db_servers
WHERE id = $1;

-- name: servers
-- Every server that tenants' databases can be on.
SELECT id, name, host, coalesce(port, 5432) AS port, server_type, status, health_status, postgres_version,
       coalesce(admin_user, 'postgres') AS admin_user, coalesce(admin_password, '') AS admin_password,
       dedicated_to_instance_id
FROM db_servers
WHERE server_type IN ('shared', 'dedicated') AND status <> 'deprovisioning'
ORDER BY name;

-- name: servers_at
-- The database servers at a host, and at a port if one is given.
SELECT id, name, host, coalesce(port, 5432) AS port, server_type, status, health_status, postgres_version,
       coalesce(admin_user, 'postgres') AS admin_user, coalesce(admin_password, '') AS admin_password,
       dedicated_to_instance_id
FROM db_servers
WHERE host = $1 AND ($2::integer IS NULL OR coalesce(port, 5432) = $2)
ORDER BY name;

-- name: dedicated_server
-- The active server that was made for an instance; the first one made, should there be several.
SELECT id, name, host, coalesce(port, 5432) AS port, server_type, status, health_status, postgres_version,
       coalesce(admin_user, 'postgres') AS admin_user, coalesce(admin_password, '') AS admin_password,
       dedicated_to_instance_id
FROM db_servers
WHERE dedicated_to_instance_id = $1 AND server_type = 'dedicated' AND status = 'active'
ORDER BY created_at, id
LIMIT 1;

-- name: entitlements
-- What a plan grants now (database `billing`). effective_date has no zone: it is compared in the server's own.
SELECT cpu_limit, memory_limit, storage_limit, db_type
FROM plan_entitlements
WHERE plan_name = $1 AND effective_date <= now()
ORDER BY effective_date DESC
LIMIT 1;

-- name: bound_locks
-- Let no statement of this transaction wait for a lock longer than this many milliseconds.
SELECT set_config('lock_timeout', $1, true);

-- name: lock_instance
-- Lock the instance's row until this transaction ends.
SELECT id FROM instances WHERE id = $1 FOR UPDATE;

-- name: lock_servers
-- Lock these servers' rows until this transaction ends; always in the same order.
SELECT id, name, current_instances, max_instances, dedicated_to_instance_id
FROM db_servers
WHERE id = ANY ($1::uuid[])
ORDER BY id
FOR UPDATE;

-- name: record
-- The columns of an instance that a migration changes, as JSON text.
SELECT jsonb_build_object(
           'status', status, 'error_message', error_message,
           'db_host', db_host, 'db_port', db_port, 'db_user', db_user, 'db_type', db_type,
           'db_server_id', db_server_id, 'plan_tier', plan_tier,
           'cpu_limit', cpu_limit, 'memory_limit', memory_limit, 'storage_limit', storage_limit,
           'service_id', service_id, 'internal_url', internal_url, 'external_url', external_url)::text
FROM instances
WHERE id = $1;

-- name: write_record
-- Write what `record` reads.
UPDATE instances
SET (status, error_message, db_host, db_port, db_user, db_type, db_server_id, plan_tier,
     cpu_limit, memory_limit, storage_limit, service_id, internal_url, external_url, updated_at)
    = (new.status, new.error_message, new.db_host, new.db_port, new.db_user, new.db_type, new.db_server_id,
       new.plan_tier, new.cpu_limit, new.memory_limit, new.storage_limit, new.service_id, new.internal_url,
       new.external_url, now())
FROM jsonb_to_record($2::text::jsonb) AS new (
    status text, error_message text, db_host text, db_port integer, db_user text, db_type text,
    db_server_id uuid, plan_tier text, cpu_limit numeric, memory_limit text, storage_limit text,
    service_id text, internal_url text, external_url text)
WHERE id = $1;

-- name: count_out
-- One instance less on a server whose count is above 0.
UPDATE db_servers
SET current_instances = current_instances - 1, updated_at = now()
WHERE id = $1 AND current_instances > 0;

-- name: count_in
-- One instance more on a server that has room.
UPDATE db_servers
SET current_instances = current_instances + 1, updated_at = now()
WHERE id = $1 AND current_instances < max_instances;

-- name: owner
-- Whose an instance is: customer and subscription.
SELECT customer_id, subscription_id FROM instances WHERE id = $1;
