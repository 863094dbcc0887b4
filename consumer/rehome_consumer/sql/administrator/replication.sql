-- What a copy needs to follow its source, and what of it is on a server. Read by the administrator; what is asked about a
-- database is asked inside it. Slot, publication and subscription of a migration have one name, 'rehome_' and 32 hexadecimal
-- digits; the slot that is its witness has the same with '_witness' behind it, its roles '_sync' (on the source) and
-- '_apply' (on the target).

-- name: server
-- What a server allows, and what is in use of it.
SELECT pg_catalog.current_setting('wal_level') AS wal_level,
       pg_catalog.current_setting('max_replication_slots')::pg_catalog.int4
           - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots)::pg_catalog.int4 AS free_slots,
       pg_catalog.current_setting('max_wal_senders')::pg_catalog.int4
           - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walsender')::pg_catalog.int4
           AS free_senders,
       (SELECT setting::pg_catalog.int8 FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size') AS keep_megabytes,
       coalesce(pg_catalog.current_setting('max_active_replication_origins', true),
                pg_catalog.current_setting('max_replication_slots'))::pg_catalog.int4
           - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_subscription)::pg_catalog.int4 AS free_origins,
       pg_catalog.current_setting('max_logical_replication_workers')::pg_catalog.int4
           - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_subscription WHERE subenabled)::pg_catalog.int4 AS free_workers;

-- name: keyless
-- Tables that have no replica identity, so that changes and removals of their rows could not be told: what it is now, and, where
-- a temporary REPLICA IDENTITY FULL would not do, why, and what to do about it; also those that have FULL, where it does not do.
-- With FULL a row is found by its values: what applies changes needs an equality for each column's type, as its type cache looks
-- it up: that of the default operator class of a B-tree, else of a hash index. Where equal values need not be the same, another
-- row could be found. From version 18 on the server refuses to change rows of a table that has FULL, a generated column, and is
-- published. Rows with FULL are written to the WAL with their large values: $1 is how many bytes of those a table may have (by
-- its first file, of 1 GB at most: so nobody waits for a lock here).
SELECT oid, quoted, former, why,
       CASE former WHEN 'i' THEN 'ALTER TABLE ... REPLICA IDENTITY DEFAULT, or USING INDEX'
                   ELSE 'ALTER TABLE ... ADD PRIMARY KEY, or REPLICA IDENTITY USING INDEX' END AS remedy
FROM (
WITH RECURSIVE keyless AS (
    SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS quoted, c.relreplident::pg_catalog.text AS former,
           CASE c.relreplident WHEN 'f' THEN 'has REPLICA IDENTITY FULL' ELSE 'has no primary key' END AS what, c.reltoastrelid
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.oid >= 16384 AND c.relpersistence = 'p'
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_index AS i
          WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
            AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident))
), inside AS (
    SELECT k.oid AS relation, a.atttypid AS kind, a.attcollation AS "collation"
    FROM keyless AS k JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.oid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    UNION
    SELECT i.relation, one.kind, one."collation"
    FROM inside AS i JOIN pg_catalog.pg_type AS t ON t.oid = i.kind, LATERAL (
        SELECT t.typbasetype AS kind, i."collation" WHERE t.typtype = 'd'
        UNION ALL
        SELECT t.typelem, i."collation"
        WHERE t.typelem <> 0 AND t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc
        UNION ALL
        SELECT a.atttypid, a.attcollation FROM pg_catalog.pg_attribute AS a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT r.rngsubtype, r.rngcollation FROM pg_catalog.pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
    ) AS one
), unsafe AS (
    SELECT i.relation, pg_catalog.min(pg_catalog.format_type(i.kind, NULL)) FILTER (WHERE t.oid >= 16384) AS foreigner,
           pg_catalog.min(pg_catalog.format_type(i.kind, NULL)) FILTER (WHERE NOT EXISTS (
               SELECT FROM pg_catalog.pg_opclass AS o JOIN pg_catalog.pg_am AS m ON m.oid = o.opcmethod
               WHERE m.amname IN ('btree', 'hash') AND o.opcdefault
                 AND (o.opcintype = t.oid
                      OR o.opcintype IN (SELECT b.casttarget FROM pg_catalog.pg_cast AS b
                                         WHERE b.castsource = t.oid AND b.castmethod = 'b' AND b.castcontext = 'i'))
           )) AS unequal
    FROM inside AS i JOIN pg_catalog.pg_type AS t ON t.oid = i.kind
    WHERE t.typtype = 'b' AND t.typsubscript <> 'pg_catalog.array_subscript_handler'::pg_catalog.regproc
    GROUP BY i.relation
)
SELECT k.oid, k.quoted, k.former,
       CASE
           WHEN k.former NOT IN ('d', 'n', 'f') THEN 'has an index as its replica identity that is gone, or not valid'
           WHEN u.unequal IS NOT NULL THEN k.what || ', and values of type ' || u.unequal || ' cannot be compared'
           WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 180000
               AND EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                           WHERE a.attrelid = k.oid AND a.attnum > 0 AND a.attgenerated <> '')
               THEN k.what || ', and a generated column'
           WHEN k.former = 'f' THEN NULL
           WHEN u.foreigner IS NOT NULL
               THEN k.what || ', and when values of type ' || u.foreigner || ' are equal is an extension''s own'
           WHEN EXISTS (SELECT FROM inside AS i JOIN pg_catalog.pg_collation AS l ON l.oid = i."collation"
                        WHERE i.relation = k.oid AND NOT l.collisdeterministic)
               THEN k.what || ', and a collation by which different texts are equal'
           WHEN (pg_catalog.pg_stat_file(pg_catalog.pg_relation_filepath(k.reltoastrelid), true)).size > $1::pg_catalog.int8
               THEN k.what || ', and many large values, which each change of a row would write to the WAL'
       END AS why
FROM keyless AS k LEFT JOIN unsafe AS u ON u.relation = k.oid
) AS told WHERE former <> 'f' OR why IS NOT NULL ORDER BY oid;

-- name: identity
-- A table, by its oid: its name, and its replica identity. No row: it is gone.
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS quoted, c.relreplident::pg_catalog.text AS identity
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = $1 AND c.relkind = 'r';

-- name: temporary
-- Those of some tables ($1: oids) that have REPLICA IDENTITY FULL.
SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS quoted
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = ANY ($1::pg_catalog.oid[]) AND c.relkind = 'r' AND c.relreplident = 'f' ORDER BY 1;

-- name: followed_by
-- A publication of rehome's with this table ($1: its oid): a copy follows it, and without its identity its rows could not be
-- changed.
SELECT p.pubname::pg_catalog.text FROM pg_catalog.pg_publication_rel AS r
JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid
WHERE r.prrelid = $1 AND p.pubname ~ '^rehome_[0-9a-f]{32}$' ORDER BY 1 LIMIT 1;

-- name: lenders
-- Migrations that have lent tables of a database ($1) replica identities; the role of $2 is not meant.
SELECT pg_catalog.substr(r.rolname::pg_catalog.text, 8, 32) AS migration
FROM pg_catalog.pg_roles AS r
JOIN pg_catalog.pg_shdescription AS s ON s.objoid = r.oid AND s.classoid = 1260  -- a role's comment
JOIN pg_catalog.pg_database AS d ON d.datname = $1
WHERE r.rolname ~ '^rehome_[0-9a-f]{32}_sync$' AND r.rolname <> $2
  AND pg_catalog.starts_with(s.description, 'rehome replica identities of database ' || d.oid || ': ') ORDER BY 1;

-- name: event_trigger
-- An event trigger of nobody's extension: what it calls would run with the rights of whoever changes a table.
SELECT e.evtname::pg_catalog.text FROM pg_catalog.pg_event_trigger AS e
WHERE e.evtenabled <> 'D' AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend AS d
    WHERE d.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass AND d.objid = e.oid AND d.deptype = 'e')
ORDER BY 1 LIMIT 1;

-- name: this_database
-- The oid of the database that this session is on.
SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database();

-- name: database_of
-- The name of a database. No row: it is gone.
SELECT d.datname::pg_catalog.text AS name FROM pg_catalog.pg_database AS d WHERE d.oid = $1;

-- name: comment_of
-- The comment of a role, in which its temporary replica identities are.
SELECT pg_catalog.textsend(pg_catalog.shobj_description(r.oid, 'pg_authid')) AS comment
FROM pg_catalog.pg_roles AS r WHERE r.rolname = $1;

-- name: wait_for_locks
-- Let statements of this transaction wait for a lock no longer than $1 (a time with its unit).
SELECT pg_catalog.set_config('lock_timeout', $1, true);

-- name: obstacles
-- What of a database is not replicated, or not safely: what it is, what to do about it. $1 is the tenant's role.
SELECT found.what, found.remedy, pg_catalog.count(*) OVER () AS total
FROM (
    SELECT 'table ' || pg_catalog.format('%I.%I', n.nspname, c.relname) || ' is UNLOGGED' AS what,
           'ALTER TABLE ... SET LOGGED' AS remedy, c.oid AS place
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.oid >= 16384 AND c.relpersistence = 'u'
    UNION ALL
    SELECT 'foreign table ' || pg_catalog.format('%I.%I', n.nspname, c.relname), 'drop it', c.oid
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'f' AND c.oid >= 16384
    UNION ALL
    SELECT 'table ' || pg_catalog.format('%I.%I', n.nspname, c.relname) || ' belongs to extension ' || e.extname,
           'its rows are not replicated: none', c.oid
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
        AND d.deptype = 'e'
    JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
    WHERE c.relkind IN ('r', 'p')
    UNION ALL
    SELECT 'table ' || pg_catalog.format('%I.%I', n.nspname, c.relname) || ' is not stored as heap', 'none', c.oid
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_am AS a ON a.oid = c.relam
    WHERE c.relkind = 'r' AND c.oid >= 16384 AND a.amname <> 'heap'
    UNION ALL
    SELECT 'table ' || pg_catalog.format('%I.%I', n.nspname, c.relname) || ' belongs to role '
               || pg_catalog.pg_get_userbyid(c.relowner), 'ALTER TABLE ... OWNER TO the tenant''s role', c.oid
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384 AND c.relpersistence <> 't'
      AND pg_catalog.pg_get_userbyid(c.relowner) <> $1::pg_catalog.name
    UNION ALL
    SELECT 'table ' || pg_catalog.format('%I.%I', n.nspname, c.relname) || ' hides rows from its own owner',
           'ALTER TABLE ... NO FORCE ROW LEVEL SECURITY', c.oid
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384 AND c.relrowsecurity AND c.relforcerowsecurity
    UNION ALL
    SELECT 'trigger ' || t.tgname || ' of ' || pg_catalog.format('%I.%I', n.nspname, c.relname)
               || ' fires on replicas, too',
           'it would act twice: ALTER TABLE ... ENABLE TRIGGER, without ALWAYS or REPLICA', c.oid
    FROM pg_catalog.pg_trigger AS t
    JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND t.tgenabled IN ('A', 'R')
    UNION ALL
    SELECT 'rule ' || w.rulename || ' of ' || pg_catalog.format('%I.%I', n.nspname, c.relname)
               || ' acts on replicas, too',
           'ALTER TABLE ... ENABLE RULE, without ALWAYS or REPLICA', c.oid
    FROM pg_catalog.pg_rewrite AS w
    JOIN pg_catalog.pg_class AS c ON c.oid = w.ev_class
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND w.ev_enabled IN ('A', 'R')
    UNION ALL
    SELECT * FROM (SELECT 'there are large objects', 'their contents are not replicated: none', 0::pg_catalog.oid
                   FROM pg_catalog.pg_largeobject_metadata LIMIT 1) AS large
    UNION ALL
    SELECT 'transaction ' || gid || ' waits for COMMIT PREPARED', 'COMMIT PREPARED or ROLLBACK PREPARED', 0
    FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()
) AS found
ORDER BY found.place, found.what LIMIT 20;

-- name: tables
-- Tables with rows of their own, as a publication names them.
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS quoted
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.oid >= 16384 AND c.relpersistence = 'p' ORDER BY c.oid;

-- name: publication
-- Whether there is a publication of this name in this database, made by an administrator.
SELECT EXISTS (SELECT FROM pg_catalog.pg_publication AS p JOIN pg_catalog.pg_roles AS r ON r.oid = p.pubowner
               WHERE p.pubname = $1 AND r.rolsuper);

-- name: slot
-- A slot: whether it streams, whether it is lost, how many bytes of WAL it keeps; and how many the server has written.
SELECT s.active,
       coalesce(s.wal_status, '') AS status,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn)::pg_catalog.int8 AS kept
FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_name = $1;

-- name: drop_slot
-- Drop a slot that nobody reads.
SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
WHERE slot_name = $1 AND NOT active;

-- name: end_reader
-- End whoever reads a slot.
SELECT pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots
WHERE slot_name = $1 AND active;

-- name: position
-- Where the server's WAL ends now.
SELECT pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text;

-- name: mark
-- Write to the WAL, so that whoever reads it gets beyond that position.
SELECT pg_catalog.pg_logical_emit_message(true, 'rehome', '')::pg_catalog.text;

-- name: subscription
-- A subscription: whether it is enabled, whether a worker applies, and whether that has reached a position ($2): what a
-- server says to be its end is answered after everything before it is applied.
SELECT s.subenabled AS enabled,
       (w.pid IS NOT NULL) AS at_work,
       coalesce(w.latest_end_lsn >= $2::pg_catalog.text::pg_catalog.pg_lsn, false) AS reached
FROM pg_catalog.pg_subscription AS s
LEFT JOIN pg_catalog.pg_stat_subscription AS w ON w.subid = s.oid AND w.relid IS NULL
WHERE s.subname = $1;

-- name: subscriptions
-- Databases that have a subscription of this name, owned by a short-lived role or an administrator.
SELECT d.datname::pg_catalog.text AS database
FROM pg_catalog.pg_subscription AS s
JOIN pg_catalog.pg_database AS d ON d.oid = s.subdbid
JOIN pg_catalog.pg_roles AS r ON r.oid = s.subowner
WHERE s.subname = $1 AND (r.rolsuper OR r.rolname ~ '^rehome_[0-9a-f]{32}_apply$') ORDER BY 1;

-- name: subscriptions_in
-- Subscriptions of rehome's in a database.
SELECT s.subname::pg_catalog.text AS name
FROM pg_catalog.pg_subscription AS s JOIN pg_catalog.pg_database AS d ON d.oid = s.subdbid
WHERE d.datname = $1 AND s.subname ~ '^rehome_[0-9a-f]{32}$' ORDER BY 1;

-- name: slots
-- Databases of slots of this name.
SELECT database::pg_catalog.text FROM pg_catalog.pg_replication_slots WHERE slot_name = $1;

-- name: role_databases
-- Databases on which a role was granted CONNECT.
SELECT d.datname::pg_catalog.text AS database
FROM pg_catalog.pg_database AS d, pg_catalog.aclexplode(d.datacl) AS a
WHERE a.grantee = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1) AND a.privilege_type = 'CONNECT'
ORDER BY 1;

-- name: flushed
-- Whether all WAL up to a position ($1) is on disk: what decodes it reads no further.
SELECT pg_catalog.pg_current_wal_flush_lsn() >= $1::pg_catalog.text::pg_catalog.pg_lsn;

-- name: altered
-- Whether anything that decides what rows of tables are, how they read, or which table has which name, was made or changed since a slot ($1) began: the
-- transactions that were not over then, and all later ones, have no smaller number than its catalog_xmin. What was made for
-- one session is not asked for. No row: there is no such slot.
SELECT s.catalog_xmin IS NULL OR EXISTS (
    SELECT FROM (
        SELECT c.xmin FROM pg_catalog.pg_class AS c
        WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'c', 'v', 'f') AND c.relpersistence <> 't'
        UNION ALL
        SELECT a.xmin FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
        WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'c', 'v', 'f') AND c.relpersistence <> 't'
        UNION ALL
        SELECT t.xmin FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
        WHERE t.oid >= 16384 AND n.nspname !~ '^pg_temp_'
        UNION ALL
        SELECT e.xmin FROM pg_catalog.pg_enum AS e WHERE e.oid >= 16384
        UNION ALL
        SELECT p.xmin FROM pg_catalog.pg_proc AS p WHERE p.oid >= 16384
        UNION ALL
        SELECT n.xmin FROM pg_catalog.pg_namespace AS n
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    ) AS found
    WHERE pg_catalog.age(found.xmin) <= pg_catalog.age(s.catalog_xmin)) AS altered
FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_name = $1;

-- name: limit_files
-- Let this transaction put no more than $1 (a size with its unit) into temporary files.
SELECT pg_catalog.set_config('temp_file_limit', $1, true);

-- name: changes
-- What a slot ($1) has to tell about a publication ($3), the beginning ($4 bytes) of
-- each message about a row: D, I, U; it is told again. When
-- there are more than $2 changes, not all transactions are in it.
SELECT CASE WHEN pg_catalog.get_byte(c.data, 0) IN (68, 73, 85) THEN pg_catalog.substr(c.data, 1, $4) ELSE c.data END AS data,
       pg_catalog.get_byte(c.data, 0) IN (68, 73, 85) AND pg_catalog.octet_length(c.data) > $4 AS cut
FROM pg_catalog.pg_logical_slot_peek_binary_changes(
    $1, NULL, $2, 'proto_version', '1', 'publication_names', $3) AS c;

-- name: others
-- Whether anybody else is at work in this database, who may not have told the statistics of it yet. Sessions of rehome's write
-- to no table of a tenant's if they are the administrator's, or of the role ($1) in whose transactions nobody can write.
SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity
               WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
                 AND backend_type NOT LIKE 'autovacuum%' AND backend_type <> 'parallel worker'
                 AND usename IS DISTINCT FROM $1::pg_catalog.name
                 AND NOT (usename = session_user AND application_name LIKE 'rehome:%'));

-- name: touched
-- Tables with rows of their own in which rows were changed or removed since they were made, or of which the statistics know
-- nothing, as after a crash. Who has only added rows has changed their number.
SELECT ARRAY[n.nspname, c.relname]::pg_catalog.text[] AS name
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.oid >= 16384 AND c.relpersistence <> 't'
  AND (pg_catalog.pg_stat_get_tuples_updated(c.oid) > 0 OR pg_catalog.pg_stat_get_tuples_deleted(c.oid) > 0
       OR pg_catalog.pg_stat_get_tuples_inserted(c.oid) = 0 AND pg_catalog.pg_relation_size(c.oid) > 0);
