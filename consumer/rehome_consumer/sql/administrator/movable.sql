-- What of a tenant's database cannot be carried over to another server as it is, and who else uses it. Read by the
-- administrator, inside the database; $1 is the tenant's role. Nothing here runs what a tenant made.
--
-- Whatever pg_dump or the new server would change in silence is either refused here, or compared afterwards
-- (fingerprint.sql), or in the list of docs/what-is-carried.md; a test holds that list against the server's catalogues.
-- Other roles' objects are found by pg_shdepend, in which every kind of object has its owner.

-- name: immovable
-- What cannot be carried over as it is: kind, name, remedy, and how many there are; run inside the database.
SELECT kind, name, remedy, pg_catalog.count(*) OVER () AS total FROM (
    SELECT 'event trigger' AS kind, evtname::pg_catalog.text AS name, 'drop it' AS remedy,
           'pg_catalog.pg_event_trigger'::pg_catalog.regclass AS class, oid
    FROM pg_catalog.pg_event_trigger
    UNION ALL
    SELECT 'subscription', s.subname::pg_catalog.text, 'drop it', 'pg_catalog.pg_subscription'::pg_catalog.regclass, s.oid
    FROM pg_catalog.pg_subscription AS s JOIN pg_catalog.pg_roles AS r ON r.oid = s.subowner
    WHERE s.subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
      AND r.rolname !~ '^rehome_[0-9a-f]{32}_apply$'
    UNION ALL
    SELECT 'foreign-data wrapper', fdwname::pg_catalog.text, 'drop it',
           'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, oid
    FROM pg_catalog.pg_foreign_data_wrapper
    UNION ALL
    SELECT 'foreign server', srvname::pg_catalog.text, 'drop it', 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, oid
    FROM pg_catalog.pg_foreign_server
    UNION ALL
    SELECT 'function in a language that is not trusted', p.oid::pg_catalog.regprocedure::pg_catalog.text, 'drop it',
           'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
    WHERE p.oid >= 16384 AND p.prokind <> 'a' AND NOT l.lanpltrusted
    UNION ALL
    SELECT 'leakproof function', oid::pg_catalog.regprocedure::pg_catalog.text, 'ALTER FUNCTION ... NOT LEAKPROOF',
           'pg_catalog.pg_proc'::pg_catalog.regclass, oid
    FROM pg_catalog.pg_proc WHERE oid >= 16384 AND proleakproof
    UNION ALL
    SELECT 'base type', oid::pg_catalog.regtype::pg_catalog.text, 'drop it', 'pg_catalog.pg_type'::pg_catalog.regclass, oid
    FROM pg_catalog.pg_type WHERE oid >= 16384 AND typtype = 'b' AND typelem = 0
    UNION ALL
    SELECT 'operator class', opcname::pg_catalog.text, 'drop it', 'pg_catalog.pg_opclass'::pg_catalog.regclass, oid
    FROM pg_catalog.pg_opclass WHERE oid >= 16384
    UNION ALL
    SELECT 'access method', amname::pg_catalog.text, 'drop it', 'pg_catalog.pg_am'::pg_catalog.regclass, oid
    FROM pg_catalog.pg_am WHERE oid >= 16384
    UNION ALL
    SELECT 'text search parser', prsname::pg_catalog.text, 'drop it', 'pg_catalog.pg_ts_parser'::pg_catalog.regclass, oid
    FROM pg_catalog.pg_ts_parser WHERE oid >= 16384
    UNION ALL
    SELECT 'text search template', tmplname::pg_catalog.text, 'drop it',
           'pg_catalog.pg_ts_template'::pg_catalog.regclass, oid
    FROM pg_catalog.pg_ts_template WHERE oid >= 16384
    UNION ALL
    SELECT 'transform', oid::pg_catalog.text, 'drop it', 'pg_catalog.pg_transform'::pg_catalog.regclass, oid
    FROM pg_catalog.pg_transform WHERE oid >= 16384
    UNION ALL
    SELECT 'cast without a function', castsource::pg_catalog.regtype || ' as ' || casttarget::pg_catalog.regtype,
           'drop it', 'pg_catalog.pg_cast'::pg_catalog.regclass, oid
    FROM pg_catalog.pg_cast WHERE oid >= 16384 AND castmethod = 'b'
    UNION ALL
    SELECT 'security label of provider', provider, 'drop it', 'pg_catalog.pg_seclabel'::pg_catalog.regclass, 0
    FROM pg_catalog.pg_seclabel
    UNION ALL
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END
               || ' of role ' || pg_catalog.pg_get_userbyid(c.relowner) || ', which the tenant may not read,',
           pg_catalog.format('%I.%I', n.nspname, c.relname),
           'GRANT USAGE on its schema and SELECT on it to the tenant''s role, or move it elsewhere',
           'pg_catalog.pg_class'::pg_catalog.regclass, c.oid
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'S') AND c.oid >= 16384 AND c.relpersistence <> 't'
      AND NOT (pg_catalog.has_table_privilege($1::pg_catalog.name, c.oid, 'SELECT')
               AND pg_catalog.has_schema_privilege($1::pg_catalog.name, n.oid, 'USAGE'))
    UNION ALL
    SELECT 'table of role ' || pg_catalog.pg_get_userbyid(c.relowner) || ' that hides rows from the tenant',
           pg_catalog.format('%I.%I', n.nspname, c.relname),
           'ALTER TABLE ... DISABLE ROW LEVEL SECURITY, or give it to the tenant''s role',
           'pg_catalog.pg_class'::pg_catalog.regclass, c.oid
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384 AND c.relrowsecurity
      AND NOT pg_catalog.pg_has_role($1::pg_catalog.name, c.relowner, 'USAGE')
    UNION ALL
    SELECT 'large object of role ' || pg_catalog.pg_get_userbyid(m.lomowner) || ', which the tenant may not read,',
           m.oid::pg_catalog.text, 'ALTER LARGE OBJECT ... OWNER TO the tenant''s role',
           'pg_catalog.pg_largeobject'::pg_catalog.regclass, m.oid
    FROM pg_catalog.pg_largeobject_metadata AS m
    WHERE NOT EXISTS (
        SELECT FROM pg_catalog.aclexplode(coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) AS a
        WHERE a.privilege_type = 'SELECT'
          AND (a.grantee = 0 OR pg_catalog.pg_has_role($1::pg_catalog.name, a.grantee, 'USAGE')))
    UNION ALL
    SELECT i.type || ' of role ' || r.rolname, i.identity,
           'ALTER ... OWNER TO the tenant''s role and GRANT ' || r.rolname || ' what it needs, or drop it',
           s.classid, s.objid
    FROM pg_catalog.pg_shdepend AS s JOIN pg_catalog.pg_roles AS r ON r.oid = s.refobjid,
         LATERAL pg_catalog.pg_identify_object(s.classid, s.objid, 0) AS i
    WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.deptype = 'o'
      AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
      AND s.classid <> 'pg_catalog.pg_default_acl'::pg_catalog.regclass  -- carried, and compared
      AND r.rolname <> $1 AND NOT r.rolsuper AND r.rolname !~ '^rehome_[0-9a-f]{32}_[a-z]+$'
    UNION ALL
    SELECT 'SECURITY DEFINER function of the administrator ' || r.rolname, p.oid::pg_catalog.regprocedure::pg_catalog.text,
           'as the tenant''s it would run with other rights: ALTER FUNCTION ... SECURITY INVOKER, or OWNER TO the '
           'tenant''s role, or drop it', 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_roles AS r ON r.oid = p.proowner
    WHERE p.oid >= 16384 AND p.prosecdef AND r.rolsuper
    UNION ALL
    SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'table with rules' END
               || ' of the administrator ' || r.rolname,
           pg_catalog.format('%I.%I', n.nspname, c.relname),
           'it reads with its owner''s rights: ALTER ... OWNER TO the tenant''s role, or drop it',
           'pg_catalog.pg_class'::pg_catalog.regclass, c.oid
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_roles AS r ON r.oid = c.relowner
    WHERE c.oid >= 16384 AND r.rolsuper AND c.relpersistence <> 't'
      AND (c.relkind IN ('v', 'm') OR c.relkind IN ('r', 'p') AND c.relhasrules)
      AND NOT coalesce(c.reloptions::pg_catalog.text ~* 'security_invoker=(true|on|yes|1)\M', false)
    UNION ALL
    SELECT 'publication', pubname::pg_catalog.text,
           'move its readers first, DROP PUBLICATION, and create it on the new server after the move',
           'pg_catalog.pg_publication'::pg_catalog.regclass, p.oid
    FROM pg_catalog.pg_publication AS p JOIN pg_catalog.pg_roles AS r ON r.oid = p.pubowner
    WHERE NOT (r.rolsuper AND pubname ~ '^rehome_[0-9a-f]{32}$')  -- a warm move's
    UNION ALL
    SELECT 'logical replication slot',
           s.slot_name || coalesce(' (' || s.plugin || ')', '')
               || coalesce(', read by ' || a.usename || ' (pid ' || a.pid || ', application ' || a.application_name
                           || coalesce(', from ' || pg_catalog.host(a.client_addr), '') || ')', ', not read now'),
           'a slot stays on its server: stop its reader and pg_drop_replication_slot it', 0, 0
    FROM pg_catalog.pg_replication_slots AS s
    LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.active_pid
    WHERE s.database = pg_catalog.current_database() AND s.slot_name !~ '^rehome_[0-9a-f]{32}(_witness)?$'
    UNION ALL
    SELECT 'language', lanname::pg_catalog.text, 'install it as an extension, or drop it',
           'pg_catalog.pg_language'::pg_catalog.regclass, oid
    FROM pg_catalog.pg_language WHERE oid >= 16384
    UNION ALL
    SELECT 'security label on database or role, of provider', s.provider, 'SECURITY LABEL ... IS NULL', 0, 0
    FROM pg_catalog.pg_shseclabel AS s
    WHERE (s.classoid, s.objoid) IN (
        SELECT 'pg_catalog.pg_database'::pg_catalog.regclass, oid FROM pg_catalog.pg_database
        WHERE datname = pg_catalog.current_database()
        UNION ALL SELECT 'pg_catalog.pg_authid'::pg_catalog.regclass, oid FROM pg_catalog.pg_roles WHERE rolname = $1)
    UNION ALL
    SELECT 'template database', datname::pg_catalog.text, 'ALTER DATABASE ... IS_TEMPLATE false', 0, 0
    FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database() AND datistemplate
) AS found
WHERE NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend AS d
    -- i: a range's constructors
    WHERE d.classid = found.class AND d.objid = found.oid AND d.deptype IN ('e', 'i')
      AND NOT (found.class = 'pg_catalog.pg_class'::pg_catalog.regclass  -- an identity's sequence, rows in a dump
               AND (d.deptype = 'i' OR EXISTS (SELECT FROM pg_catalog.pg_extension AS x
                                               WHERE x.oid = d.refobjid AND found.oid = ANY(x.extconfig))))
)
ORDER BY kind, name LIMIT 20;

-- name: attached
-- What other programs hang on the database, in words.
SELECT what FROM (
    SELECT 1 AS place, 'publication ' || p.pubname AS what
    FROM pg_catalog.pg_publication AS p JOIN pg_catalog.pg_roles AS r ON r.oid = p.pubowner
    WHERE NOT (r.rolsuper AND p.pubname ~ '^rehome_[0-9a-f]{32}$')
    UNION ALL
    SELECT 2, 'logical replication slot ' || s.slot_name
              || coalesce(', read by role ' || a.usename || ' (application ' || a.application_name || ')', ', not read now')
    FROM pg_catalog.pg_replication_slots AS s
    LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.active_pid
    WHERE s.database = pg_catalog.current_database() AND s.slot_name !~ '^rehome_[0-9a-f]{32}(_witness)?$'
    UNION ALL
    SELECT 3, 'subscription ' || subname FROM pg_catalog.pg_subscription
    WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    UNION ALL
    SELECT DISTINCT 4, 'role ' || r.rolname || ' may log in and has rights here: on the new server it gets these rights, '
                       'and neither login nor password'
    FROM pg_catalog.pg_shdepend AS s
    JOIN pg_catalog.pg_roles AS r ON r.oid = s.refobjid
    JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database()
    WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
      AND (s.dbid = d.oid OR (s.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND s.objid = d.oid))
      AND r.rolcanlogin AND NOT r.rolsuper AND r.rolname <> $1 AND r.rolname !~ '^rehome_[0-9a-f]{32}_[a-z]+$'
    UNION ALL
    SELECT 5, 'role ' || a.usename || ' is connected: ' || pg_catalog.count(*) || ' session(s), application '
              || coalesce(nullif(a.application_name, ''), 'without a name') || ': a move ends them'
    FROM pg_catalog.pg_stat_activity AS a
    WHERE a.datname = pg_catalog.current_database() AND a.backend_type IN ('client backend', 'walsender')
      AND a.usename <> $1 AND a.usename <> session_user AND a.usename !~ '^rehome_[0-9a-f]{32}_[a-z]+$'
    GROUP BY a.usename, a.application_name
) AS found
ORDER BY place, what LIMIT 20;
