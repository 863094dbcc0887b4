-- The schema objects of a database, for comparing two databases. Each query is one kind of object and gives, for every
-- object that a user made (oid 16384 and up, no extension's): a label, its name in parts, and what must be the same.
-- Kinds called *_definition hold text that PostgreSQL writes from its parse trees; major versions may spell it
-- differently. The tenant's role, which setting rehome.tenant names, is written <tenant>, and superusers as owners are
-- <administrator>; the database's owner is not read, since a fenced database belongs to the administrator. With setting
-- rehome.rows off, what goes with rows is left out: whether a materialized view is filled, and large objects. Nothing here
-- needs a superuser, and every name is qualified.

-- name: table
-- Tables, views and composite types: what kind, how stored, how protected, whose child. A replica identity that rehome has lent
-- a table for this migration, by whose login this is read (identities.py), is written as what the table had before.
SELECT '' AS label, ARRAY[n.nspname, c.relname]::pg_catalog.text[] AS name,
       pg_catalog.concat_ws(' ', 'kind=' || c.relkind::pg_catalog.text,
           'persistence=' || c.relpersistence::pg_catalog.text, 'method=' || am.amname,
                 'replica_identity=' || CASE c.relreplident WHEN 'f' THEN coalesce((
                     SELECT pg_catalog.max(pg_catalog."substring"(s.description, ' ' || c.oid || '=([dn])(?: |$)'))
                     FROM pg_catalog.pg_roles AS r
                     JOIN pg_catalog.pg_shdescription AS s ON s.objoid = r.oid AND s.classoid = 1260  -- a role's comment
                     JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database()
                     WHERE r.rolname = pg_catalog.regexp_replace(session_user::pg_catalog.text, '_[a-z]+$', '_sync')
                       AND pg_catalog.starts_with(s.description, 'rehome replica identities of database ' || d.oid || ': ')
                 ), 'f') ELSE c.relreplident::pg_catalog.text END, 'row_security=' || c.relrowsecurity,
                 'forced=' || c.relforcerowsecurity, 'populated='
                     || CASE pg_catalog.current_setting('rehome.rows', true) WHEN 'off' THEN '' ELSE c.relispopulated::pg_catalog.text END,
                 'of=' || CASE WHEN c.reloftype <> 0 THEN c.reloftype::pg_catalog.regtype::pg_catalog.text END,
                 'options=' || ARRAY(SELECT pg_catalog.unnest(c.reloptions) ORDER BY 1)::pg_catalog.text,
                 'toast_options=' || ARRAY(SELECT pg_catalog.unnest(t.reloptions) ORDER BY 1)::pg_catalog.text,
                 'parents='
                     || ARRAY(SELECT inhparent::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_inherits
                                     WHERE inhrelid = c.oid ORDER BY inhseqno)::pg_catalog.text) AS value
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am AS am ON am.oid = c.relam
LEFT JOIN pg_catalog.pg_class AS t ON t.oid = c.reltoastrelid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.oid >= 16384 AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid
                      AND e.deptype = 'e');

-- name: partition_definition
-- Keys of partitioned tables and bounds of partitions.
SELECT '' AS label, ARRAY[n.nspname, c.relname]::pg_catalog.text[] AS name,
       pg_catalog.concat_ws(' ', pg_catalog.pg_get_partkeydef(c.oid),
           pg_catalog.pg_get_expr(c.relpartbound, c.oid)) AS value
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE (c.relkind = 'p' OR c.relispartition) AND c.oid >= 16384 AND c.relkind IN ('r', 'p', 'f');

-- name: column
-- Columns: type, collation, NOT NULL, identity, generated or default, how stored. Minor releases since November 2026
-- (15.20) mark every column with a number of the server's own, pg_attver, in attoptions; a dump leaves it out.
SELECT '' AS label, ARRAY[n.nspname, c.relname, a.attname]::pg_catalog.text[] AS name,
       pg_catalog.concat_ws(' ', pg_catalog.format_type(a.atttypid, a.atttypmod),
                 CASE WHEN a.attcollation <> t.typcollation THEN 'collation='
                     || a.attcollation::pg_catalog.regcollation END,
                 CASE WHEN a.attnotnull THEN 'not null' END,
                 CASE WHEN a.atthasdef AND a.attgenerated = '' THEN 'default' END,
                 'identity=' || nullif(a.attidentity::pg_catalog.text, ''),
                 'generated=' || nullif(a.attgenerated::pg_catalog.text, ''),
                 'storage=' || nullif(a.attstorage, t.typstorage)::pg_catalog.text,
                 'statistics=' || nullif(coalesce(a.attstattarget, -1), -1),
                 'options=' || ARRAY(SELECT o FROM pg_catalog.unnest(a.attoptions) AS o
                                     WHERE o NOT LIKE 'pg\_attver=%' ORDER BY 1)::pg_catalog.text) AS value
FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
WHERE a.attnum > 0 AND NOT a.attisdropped
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.oid >= 16384 AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid
                      AND e.deptype = 'e');

-- name: default_definition
-- Default and generation expressions.
SELECT '' AS label, ARRAY[n.nspname, c.relname, a.attname]::pg_catalog.text[] AS name,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS value
FROM pg_catalog.pg_attrdef AS d
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
JOIN pg_catalog.pg_class AS c ON c.oid = d.adrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid
                      AND e.deptype = 'e');

-- name: index
-- Indexes: of which table, how, what they promise. A dump leaves invalid ones out.
SELECT '' AS label, ARRAY[n.nspname, c.relname]::pg_catalog.text[] AS name,
       pg_catalog.concat_ws(' ', 'on=' || i.indrelid::pg_catalog.regclass, 'method=' || am.amname,
           'columns=' || i.indnatts,
                 'keys=' || i.indnkeyatts,
                 CASE WHEN i.indisunique THEN 'unique' END, CASE WHEN i.indisprimary THEN 'primary' END,
                 CASE WHEN i.indisexclusion THEN 'exclusion' END,
                 CASE WHEN i.indimmediate THEN 'immediate' END,
                 CASE WHEN i.indisreplident THEN 'replica identity' END,
                 CASE WHEN i.indisclustered THEN 'clustered' END,
                 CASE WHEN i.indpred IS NOT NULL THEN 'partial' END) AS value
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class AS o ON o.oid = i.indrelid
JOIN pg_catalog.pg_am AS am ON am.oid = c.relam
WHERE (i.indisvalid OR c.relkind = 'I') AND o.relkind IN ('r', 'p', 'm')
  AND o.oid >= 16384 AND o.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = o.oid
                      AND e.deptype = 'e');

-- name: index_definition
-- What indexes are over.
SELECT '' AS label, ARRAY[n.nspname, c.relname]::pg_catalog.text[] AS name, pg_catalog.pg_get_indexdef(c.oid) AS value
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class AS o ON o.oid = i.indrelid
WHERE (i.indisvalid OR c.relkind = 'I') AND o.relkind IN ('r', 'p', 'm')
  AND o.oid >= 16384 AND o.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = o.oid
                      AND e.deptype = 'e');

-- name: constraint
-- Constraints of tables and domains: kind, over which columns, to where, checked or not. NOT NULL is a column's, and
-- `not_null_definition`; of a foreign key on partitions only the parent counts, since the others get new names.
-- NOT ENFORCED, WITHOUT OVERLAPS and PERIOD are of version 18.
SELECT '' AS label,
       ARRAY[n.nspname, coalesce(c.relname, t.typname), o.conname]::pg_catalog.text[] AS name,
       pg_catalog.concat_ws(' ', 'kind=' || o.contype::pg_catalog.text, 'validated=' || o.convalidated,
                 'columns='
                     || ARRAY(SELECT a.attname FROM pg_catalog.unnest(o.conkey) WITH ORDINALITY AS k(number, place)
                                     JOIN pg_catalog.pg_attribute AS a ON a.attrelid = o.conrelid
                                         AND a.attnum = k.number
                                     ORDER BY k.place)::pg_catalog.text,
                 'references='
                     || CASE WHEN o.confrelid <> 0 THEN o.confrelid::pg_catalog.regclass::pg_catalog.text END,
                 'actions='
                     || nullif(o.confupdtype::pg_catalog.text || o.confdeltype::pg_catalog.text
                         || o.confmatchtype::pg_catalog.text, '   '),
                 CASE WHEN o.condeferrable THEN 'deferrable' END, CASE WHEN o.condeferred THEN 'deferred' END,
                 CASE WHEN o.contype = 'c' AND o.connoinherit THEN 'no inherit' END,
                 CASE WHEN j.row ->> 'conenforced' = 'false' THEN 'not enforced' END,
                 CASE WHEN j.row ->> 'conperiod' = 'true' THEN 'period' END) AS value
FROM pg_catalog.pg_constraint AS o
JOIN pg_catalog.pg_namespace AS n ON n.oid = o.connamespace
CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(o) AS row) AS j
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = o.conrelid
LEFT JOIN pg_catalog.pg_type AS t ON t.oid = o.contypid
WHERE o.contype NOT IN ('n', 't') AND o.oid >= 16384 AND NOT (o.contype = 'f' AND o.conparentid <> 0)
  AND coalesce(c.relpersistence, 'p') <> 't'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE (e.classid, e.objid) IN (('pg_catalog.pg_class'::pg_catalog.regclass, c.oid),
                      ('pg_catalog.pg_type'::pg_catalog.regclass, t.oid))
                    AND e.deptype = 'e');

-- name: constraint_definition
-- What constraints say.
SELECT '' AS label,
       ARRAY[n.nspname, coalesce(c.relname, t.typname), o.conname]::pg_catalog.text[] AS name,
       pg_catalog.pg_get_constraintdef(o.oid) AS value
FROM pg_catalog.pg_constraint AS o
JOIN pg_catalog.pg_namespace AS n ON n.oid = o.connamespace
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = o.conrelid
LEFT JOIN pg_catalog.pg_type AS t ON t.oid = o.contypid
WHERE o.contype NOT IN ('n', 't') AND o.oid >= 16384 AND NOT (o.contype = 'f' AND o.conparentid <> 0)
  AND coalesce(c.relpersistence, 'p') <> 't'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE (e.classid, e.objid) IN (('pg_catalog.pg_class'::pg_catalog.regclass, c.oid),
                      ('pg_catalog.pg_type'::pg_catalog.regclass, t.oid))
                    AND e.deptype = 'e');

-- name: not_null_definition
-- NOT NULL where it is a constraint of its own, with a name: of domains since version 17, of tables since 18. Like every
-- definition, it is not compared between two versions, one of which may have none.
SELECT '' AS label,
       ARRAY[n.nspname, coalesce(c.relname, t.typname), o.conname]::pg_catalog.text[] AS name,
       pg_catalog.pg_get_constraintdef(o.oid) AS value
FROM pg_catalog.pg_constraint AS o
JOIN pg_catalog.pg_namespace AS n ON n.oid = o.connamespace
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = o.conrelid
LEFT JOIN pg_catalog.pg_type AS t ON t.oid = o.contypid
WHERE o.contype = 'n' AND o.oid >= 16384 AND coalesce(c.relpersistence, 'p') <> 't'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE (e.classid, e.objid) IN (('pg_catalog.pg_class'::pg_catalog.regclass, c.oid),
                      ('pg_catalog.pg_type'::pg_catalog.regclass, t.oid))
                    AND e.deptype = 'e');

-- name: trigger
-- Triggers: enabled or not, what they call. Those that partitions have from their parent are not counted.
SELECT '' AS label, ARRAY[n.nspname, c.relname, t.tgname]::pg_catalog.text[] AS name,
       pg_catalog.concat_ws(' ', 'enabled=' || t.tgenabled::pg_catalog.text,
           'calls=' || t.tgfoid::pg_catalog.regprocedure, 'type=' || t.tgtype,
                 CASE WHEN t.tgdeferrable THEN 'deferrable' END) AS value
FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND coalesce(pg_catalog.to_jsonb(t) ->> 'tgparentid', '0') = '0' AND c.oid >= 16384;

-- name: trigger_definition
-- What triggers say.
SELECT '' AS label, ARRAY[n.nspname, c.relname, t.tgname]::pg_catalog.text[] AS name,
pg_catalog.pg_get_triggerdef(t.oid) AS value
FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND coalesce(pg_catalog.to_jsonb(t) ->> 'tgparentid', '0') = '0' AND c.oid >= 16384;

-- name: rule
-- Rules, a view's own excepted.
SELECT '' AS label, ARRAY[n.nspname, c.relname, r.rulename]::pg_catalog.text[] AS name,
       pg_catalog.concat_ws(' ', 'event=' || r.ev_type::pg_catalog.text,
           'enabled=' || r.ev_enabled::pg_catalog.text, 'instead=' || r.is_instead) AS value
FROM pg_catalog.pg_rewrite AS r
JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND r.oid >= 16384;

-- name: rule_definition
-- What rules say.
SELECT '' AS label, ARRAY[n.nspname, c.relname, r.rulename]::pg_catalog.text[] AS name,
pg_catalog.pg_get_ruledef(r.oid) AS value
FROM pg_catalog.pg_rewrite AS r
JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND r.oid >= 16384;

-- name: view_definition
-- What views and materialized views show: SHA-256 of the text.
SELECT '' AS label, ARRAY[n.nspname, c.relname]::pg_catalog.text[] AS name,
       pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.pg_get_viewdef(c.oid), 'UTF8')),
           'hex') AS value
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND c.oid >= 16384 AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid
                      AND e.deptype = 'e');

-- name: function
-- Functions and procedures: everything that decides what they do, the body as SHA-256.
SELECT '' AS label,
       ARRAY[n.nspname,
           p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')']::pg_catalog.text[]
               AS name,
       pg_catalog.concat_ws(' ', 'kind=' || p.prokind::pg_catalog.text,
           'returns=' || pg_catalog.format_type(p.prorettype, NULL),
                 CASE WHEN p.proretset THEN 'setof' END, 'language=' || l.lanname,
                 'volatility=' || p.provolatile::pg_catalog.text, 'parallel=' || p.proparallel::pg_catalog.text,
                 CASE WHEN p.proisstrict THEN 'strict' END, CASE WHEN p.prosecdef THEN 'definer' END,
                 'cost=' || p.procost, 'rows=' || p.prorows,
                 'config=' || ARRAY(SELECT pg_catalog.unnest(p.proconfig) ORDER BY 1)::pg_catalog.text,
                 'body=' || pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(p.prosrc, 'UTF8')), 'hex'))
                     AS value
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
WHERE p.oid >= 16384
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = p.oid
                      AND e.deptype IN ('e', 'i'));

-- name: function_definition
-- Functions with their arguments' defaults and bodies in standard SQL: SHA-256 of the text.
SELECT '' AS label,
       ARRAY[n.nspname,
           p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')']::pg_catalog.text[]
               AS name,
       pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.pg_get_functiondef(p.oid), 'UTF8')),
           'hex') AS value
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE p.oid >= 16384 AND p.prokind <> 'a'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = p.oid
                      AND e.deptype IN ('e', 'i'));

-- name: aggregate
-- Aggregates: what they are made of.
SELECT '' AS label,
       ARRAY[n.nspname,
           p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')']::pg_catalog.text[]
               AS name,
       pg_catalog.concat_ws(' ', a.aggkind::pg_catalog.text, a.aggtransfn::pg_catalog.text,
           a.aggfinalfn::pg_catalog.text, a.aggcombinefn::pg_catalog.text,
                 a.aggmtransfn::pg_catalog.text, pg_catalog.format_type(a.aggtranstype, NULL), a.agginitval) AS value
FROM pg_catalog.pg_aggregate AS a
JOIN pg_catalog.pg_proc AS p ON p.oid = a.aggfnoid
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE p.oid >= 16384
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = p.oid
                      AND e.deptype = 'e');

-- name: type
-- Enumerations with their labels in order, domains, ranges. Composite types are tables here.
SELECT '' AS label, ARRAY[n.nspname, t.typname]::pg_catalog.text[] AS name,
       pg_catalog.concat_ws(' ', 'kind=' || t.typtype::pg_catalog.text,
                 'labels=' || CASE WHEN t.typtype = 'e' THEN ARRAY(
                     SELECT enumlabel FROM pg_catalog.pg_enum
                         WHERE enumtypid = t.oid ORDER BY enumsortorder)::pg_catalog.text END,
                 'base=' || CASE WHEN t.typtype = 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) END,
                 CASE WHEN t.typnotnull THEN 'not null' END, 'default=' || t.typdefault,
                 'subtype=' || pg_catalog.format_type(r.rngsubtype, NULL)) AS value
FROM pg_catalog.pg_type AS t
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_range AS r ON r.rngtypid = t.oid
WHERE t.typtype IN ('e', 'd', 'r') AND t.oid >= 16384
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND e.objid = t.oid
                      AND e.deptype = 'e');

-- name: extension
-- Extensions and their versions.
SELECT '' AS label, ARRAY[extname]::pg_catalog.text[] AS name, extversion AS value FROM pg_catalog.pg_extension;

-- name: policy
-- Row security policies: for which command, of whom.
SELECT '' AS label, ARRAY[n.nspname, c.relname, p.polname]::pg_catalog.text[] AS name,
       pg_catalog.concat_ws(' ', 'for=' || p.polcmd::pg_catalog.text, 'permissive=' || p.polpermissive,
           'roles=' || ARRAY(
           SELECT CASE WHEN r = 0 THEN 'PUBLIC'
                       WHEN pg_catalog.pg_get_userbyid(r) = pg_catalog.current_setting('rehome.tenant') THEN '<tenant>'
                       ELSE pg_catalog.pg_get_userbyid(r)::pg_catalog.text END
           FROM pg_catalog.unnest(p.polroles) AS r ORDER BY 1)::pg_catalog.text) AS value
FROM pg_catalog.pg_policy AS p
JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace;

-- name: policy_definition
-- What policies say.
SELECT '' AS label, ARRAY[n.nspname, c.relname, p.polname]::pg_catalog.text[] AS name,
       pg_catalog.concat_ws(' check ', pg_catalog.pg_get_expr(p.polqual, p.polrelid),
           pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)) AS value
FROM pg_catalog.pg_policy AS p
JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace;

-- name: object
-- Everything else that has a name of its own: operators, casts, collations, text search, statistics, languages, and what
-- each is made of. Not all versions write the schema of the same built-in types.
SELECT i.type AS label,
       ARRAY[pg_catalog.regexp_replace(i.identity, '\mpg_catalog\.', '', 'g')]::pg_catalog.text[] AS name,
       pg_catalog.regexp_replace(coalesce(o.value, ''), '\mpg_catalog\.', '', 'g') AS value
FROM (SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass AS class, oid,
             pg_catalog.concat_ws(' ', 'function=' || oprcode::pg_catalog.text,
                 'commutator=' || oprcom::pg_catalog.regoperator::pg_catalog.text,
                 'negator=' || oprnegate::pg_catalog.regoperator::pg_catalog.text, 'restrict=' || oprrest::pg_catalog.text,
                 'join=' || oprjoin::pg_catalog.text, 'merges=' || oprcanmerge, 'hashes=' || oprcanhash) AS value
      FROM pg_catalog.pg_operator
      UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, oid, '' FROM pg_catalog.pg_opfamily
      UNION ALL SELECT 'pg_catalog.pg_cast'::pg_catalog.regclass, oid,
                       pg_catalog.concat_ws(' ', 'function=' || castfunc::pg_catalog.regprocedure::pg_catalog.text,
                           'context=' || castcontext::pg_catalog.text, 'method=' || castmethod::pg_catalog.text)
                FROM pg_catalog.pg_cast
      UNION ALL SELECT 'pg_catalog.pg_collation'::pg_catalog.regclass, oid,
                       pg_catalog.concat_ws(' ', 'provider=' || collprovider::pg_catalog.text,
                           'deterministic=' || collisdeterministic,
                           'collate=' || collcollate::pg_catalog.text, 'ctype=' || collctype::pg_catalog.text,
                           'locale=' || coalesce(pg_catalog.to_jsonb(c) ->> 'colllocale',
                                                 pg_catalog.to_jsonb(c) ->> 'colliculocale'),
                           'rules=' || (pg_catalog.to_jsonb(c) ->> 'collicurules'))
                FROM pg_catalog.pg_collation AS c
      UNION ALL SELECT 'pg_catalog.pg_conversion'::pg_catalog.regclass, oid,
                       pg_catalog.concat_ws(' ', conforencoding, contoencoding, conproc::pg_catalog.text, condefault)
                FROM pg_catalog.pg_conversion
      UNION ALL SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, c.oid,
                       pg_catalog.concat_ws(' ', p.prsname,
                           ARRAY(SELECT m.maptokentype || ' ' || m.mapdict::pg_catalog.regdictionary
                                 FROM pg_catalog.pg_ts_config_map AS m
                                 WHERE m.mapcfg = c.oid ORDER BY m.maptokentype, m.mapseqno)::pg_catalog.text)
                FROM pg_catalog.pg_ts_config AS c JOIN pg_catalog.pg_ts_parser AS p ON p.oid = c.cfgparser
      UNION ALL SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, d.oid,
                       pg_catalog.concat_ws(' ', m.tmplname, d.dictinitoption)
                FROM pg_catalog.pg_ts_dict AS d JOIN pg_catalog.pg_ts_template AS m ON m.oid = d.dicttemplate
      UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, oid,
                       pg_catalog.concat_ws(' ', stxkind::pg_catalog.text, 'target=' || nullif(stxstattarget, -1))
                FROM pg_catalog.pg_statistic_ext
      UNION ALL SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, oid, '' FROM pg_catalog.pg_language
      UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, '' FROM pg_catalog.pg_namespace
          WHERE nspname !~ '^pg_(toast_)?temp_' AND nspname <> 'public'  -- whose oid tells nothing: see `owner`
     ) AS o,
     LATERAL pg_catalog.pg_identify_object(o.class, o.oid, 0) AS i
WHERE o.oid >= 16384
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = o.class AND e.objid = o.oid AND e.deptype = 'e');

-- name: statistics_definition
-- What extended statistics are over.
SELECT '' AS label, ARRAY[n.nspname, s.stxname]::pg_catalog.text[] AS name,
       pg_catalog.pg_get_statisticsobjdef(s.oid) AS value
FROM pg_catalog.pg_statistic_ext AS s JOIN pg_catalog.pg_namespace AS n ON n.oid = s.stxnamespace
WHERE s.oid >= 16384;

-- name: owner
-- Who owns what.
SELECT o.label, o.name,
       CASE WHEN r.rolname = pg_catalog.current_setting('rehome.tenant') THEN '<tenant>'
            WHEN r.rolsuper THEN '<administrator>' ELSE r.rolname::pg_catalog.text END AS value
FROM (
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' ELSE 'table' END AS label,
           ARRAY[n.nspname, c.relname]::pg_catalog.text[] AS name, c.relowner AS owner,
           'pg_catalog.pg_class'::pg_catalog.regclass AS class, c.oid
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
    UNION ALL
    SELECT 'function',
           ARRAY[n.nspname, p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')'],
           p.proowner, 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace WHERE p.oid >= 16384
    UNION ALL
    SELECT 'type', ARRAY[n.nspname, t.typname], t.typowner, 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid
    FROM pg_catalog.pg_type AS t
    JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
    LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
    WHERE t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c'
    UNION ALL
    SELECT 'schema', ARRAY[nspname], nspowner, 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid
    FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    UNION ALL
    SELECT i.type, ARRAY[pg_catalog.regexp_replace(i.identity, '\mpg_catalog\.', '', 'g')], x.owner, x.class, x.oid
    FROM (SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass AS class, oid, oprowner AS owner FROM pg_catalog.pg_operator
          UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, oid, opfowner FROM pg_catalog.pg_opfamily
          UNION ALL SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, oid, opcowner FROM pg_catalog.pg_opclass
          UNION ALL SELECT 'pg_catalog.pg_collation'::pg_catalog.regclass, oid, collowner FROM pg_catalog.pg_collation
          UNION ALL SELECT 'pg_catalog.pg_conversion'::pg_catalog.regclass, oid, conowner FROM pg_catalog.pg_conversion
          UNION ALL SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, oid, cfgowner FROM pg_catalog.pg_ts_config
          UNION ALL SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, oid, dictowner FROM pg_catalog.pg_ts_dict
          UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, oid, stxowner FROM pg_catalog.pg_statistic_ext
          UNION ALL SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, oid, lanowner FROM pg_catalog.pg_language
          UNION ALL SELECT 'pg_catalog.pg_extension'::pg_catalog.regclass, oid, extowner FROM pg_catalog.pg_extension
         ) AS x, LATERAL pg_catalog.pg_identify_object(x.class, x.oid, 0) AS i
    WHERE x.oid >= 16384
    UNION ALL
    -- One that is not the tenant's stands for all.
    SELECT 'large objects', ARRAY['all'], m.owner, 0, 0
    FROM (SELECT m.lomowner AS owner
          FROM pg_catalog.pg_largeobject_metadata AS m
          WHERE pg_catalog.current_setting('rehome.rows', true) IS DISTINCT FROM 'off'
          ORDER BY pg_catalog.pg_get_userbyid(m.lomowner) = pg_catalog.current_setting('rehome.tenant'), m.lomowner
          LIMIT 1) AS m
) AS o
JOIN pg_catalog.pg_roles AS r ON r.oid = o.owner
WHERE (o.oid >= 16384 OR o.label IN ('schema', 'large objects'))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = o.class AND e.objid = o.oid AND e.deptype IN ('e', 'i'));

-- name: grant
-- Who may do what, except with the database itself, which the fence closes; * with the right to pass it on. Of owners'
-- own privileges only those of a tenant that has given up some. What the tenant was granted on what an administrator owns
-- is left out: it becomes the tenant's, unless it is a schema.
SELECT o.label,
       o.name || CASE g.grantee WHEN pg_catalog.current_setting('rehome.tenant') THEN '<tenant>' ELSE g.grantee END AS name,
       pg_catalog.string_agg(g.privilege || CASE WHEN g.grantable THEN '*' ELSE '' END, ', ' ORDER BY g.privilege)
           AS value
FROM (
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS label,
           ARRAY[n.nspname, c.relname]::pg_catalog.text[] AS name,
           coalesce(c.relacl,
               pg_catalog.acldefault(CASE c.relkind WHEN 'S' THEN 's'
                   ELSE 'r' END::pg_catalog."char", c.relowner)) AS acl,
           c.relowner AS owner, 'pg_catalog.pg_class'::pg_catalog.regclass AS class, c.oid,
           CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END AS kind, c.relacl IS NOT NULL AS given
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
    UNION ALL
    SELECT 'column', ARRAY[n.nspname, c.relname, a.attname], a.attacl, c.relowner,
           'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 'c', true
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT 'function',
           ARRAY[n.nspname, p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')'],
           coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), p.proowner,
           'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 'f', p.proacl IS NOT NULL
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace WHERE p.oid >= 16384
    UNION ALL
    SELECT 'type', ARRAY[n.nspname, t.typname], coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner)),
           t.typowner,
           'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, 'T', t.typacl IS NOT NULL
    FROM pg_catalog.pg_type AS t
        JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r')
    UNION ALL
    SELECT 'schema', ARRAY[nspname], coalesce(nspacl, pg_catalog.acldefault('n', nspowner)), nspowner,
           'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, 'n', nspacl IS NOT NULL
    FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    UNION ALL
    SELECT 'large object', ARRAY[m.oid::pg_catalog.text], m.lomacl, m.lomowner,
           0, m.oid, 'L', true
    FROM pg_catalog.pg_largeobject_metadata AS m
    WHERE m.lomacl IS NOT NULL AND pg_catalog.current_setting('rehome.rows', true) IS DISTINCT FROM 'off'
) AS o
CROSS JOIN LATERAL (
    SELECT a.grantee AS role, a.privilege_type AS privilege, a.is_grantable AS grantable,
           CASE a.grantee WHEN 0 THEN 'PUBLIC'
               ELSE pg_catalog.pg_get_userbyid(a.grantee)::pg_catalog.text END AS grantee
    FROM pg_catalog.aclexplode(o.acl) AS a
) AS g
WHERE (o.oid >= 16384 OR o.label = 'schema')
  AND (g.role <> o.owner OR (o.given AND o.kind <> 'c' AND g.grantee = pg_catalog.current_setting('rehome.tenant')))
  AND (o.label = 'schema' OR g.role = o.owner
       OR g.grantee NOT IN (pg_catalog.current_setting('rehome.tenant'), 'pg_database_owner'))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = o.class AND e.objid = o.oid AND e.deptype IN ('e', 'i'))
GROUP BY o.label, o.name, g.grantee, g.role, o.owner, o.kind
HAVING g.role <> o.owner
    OR pg_catalog.count(*) < (SELECT pg_catalog.count(*)
                              FROM pg_catalog.aclexplode(pg_catalog.acldefault(o.kind::pg_catalog."char", o.owner)) AS d
                              WHERE d.grantee = o.owner);

-- name: system_grant
-- Privileges on what PostgreSQL brings along, or an extension, that are not as they were made: granted and revoked.
SELECT 'on' AS label,
       ARRAY[pg_catalog.regexp_replace(i.identity, '\mpg_catalog\.', '', 'g'),
             CASE WHEN g.grantee = 0 THEN 'PUBLIC'
                  WHEN pg_catalog.pg_get_userbyid(g.grantee) = pg_catalog.current_setting('rehome.tenant') THEN '<tenant>'
                  WHEN u.rolsuper THEN '<administrator>' ELSE u.rolname END,
             CASE WHEN g.now THEN 'granted' ELSE 'revoked' END]::pg_catalog.text[] AS name,
       pg_catalog.string_agg(DISTINCT g.privilege || CASE WHEN g.grantable THEN '*' ELSE '' END, ', ') AS value
FROM (
    SELECT o.class, o.oid, o.part, o.owner, o.acl,
           coalesce((SELECT p.initprivs FROM pg_catalog.pg_init_privs AS p
                     WHERE p.classoid = o.class AND p.objoid = o.oid AND p.objsubid = o.part),
                    pg_catalog.acldefault(o.kind::pg_catalog."char", o.owner)) AS usual
    FROM (
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS class, oid, 0 AS part, relowner AS owner, relacl AS acl,
               CASE relkind WHEN 'S' THEN 's' ELSE 'r' END AS kind
        FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, a.attrelid, a.attnum, c.relowner, a.attacl, 'c'
        FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid WHERE NOT a.attisdropped
        UNION ALL
        SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, 0, proowner, proacl, 'f' FROM pg_catalog.pg_proc
        UNION ALL
        SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid, 0, typowner, typacl, 'T' FROM pg_catalog.pg_type
        UNION ALL
        SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, oid, 0, lanowner, lanacl, 'l' FROM pg_catalog.pg_language
        UNION ALL
        SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, 0, nspowner, nspacl, 'n' FROM pg_catalog.pg_namespace
        WHERE nspname <> 'public'
    ) AS o
    WHERE o.acl IS NOT NULL
      AND (o.oid < 16384 OR EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                                    WHERE e.classid = o.class AND e.objid = o.oid AND e.deptype = 'e'))
) AS s,
LATERAL (
    SELECT a.grantee, a.privilege_type AS privilege, a.is_grantable AS grantable, true AS now
    FROM pg_catalog.aclexplode(s.acl) AS a
    WHERE NOT EXISTS (SELECT FROM pg_catalog.aclexplode(s.usual) AS b
                      WHERE (b.grantee, b.privilege_type, b.is_grantable)
                            = (a.grantee, a.privilege_type, a.is_grantable))
    UNION ALL
    SELECT b.grantee, b.privilege_type, b.is_grantable, false
    FROM pg_catalog.aclexplode(s.usual) AS b
    WHERE NOT EXISTS (SELECT FROM pg_catalog.aclexplode(s.acl) AS a
                      WHERE (b.grantee, b.privilege_type, b.is_grantable)
                            = (a.grantee, a.privilege_type, a.is_grantable))
) AS g
LEFT JOIN pg_catalog.pg_roles AS u ON u.oid = g.grantee,
LATERAL pg_catalog.pg_identify_object(s.class, s.oid, s.part) AS i
WHERE g.grantee <> s.owner
GROUP BY 2;

-- name: default_grant
-- Privileges that objects will get when they are created: by whom, where, of what kind, for whom.
SELECT '' AS label,
       ARRAY[CASE r.rolname WHEN pg_catalog.current_setting('rehome.tenant') THEN '<tenant>' ELSE r.rolname END,
             coalesce(n.nspname, ''), a.defaclobjtype::pg_catalog.text,
             CASE WHEN g.grantee = 0 THEN 'PUBLIC'
                  WHEN pg_catalog.pg_get_userbyid(g.grantee) = pg_catalog.current_setting('rehome.tenant')
                  THEN '<tenant>' ELSE pg_catalog.pg_get_userbyid(g.grantee) END]::pg_catalog.text[] AS name,
       pg_catalog.string_agg(g.privilege_type || CASE WHEN g.is_grantable THEN '*' ELSE '' END, ', '
                             ORDER BY g.privilege_type) AS value
FROM pg_catalog.pg_default_acl AS a
JOIN pg_catalog.pg_roles AS r ON r.oid = a.defaclrole
LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = a.defaclnamespace
CROSS JOIN LATERAL pg_catalog.aclexplode(a.defaclacl) AS g
WHERE g.grantee <> a.defaclrole
GROUP BY 2;

-- name: setting
-- ALTER DATABASE SET and ALTER ROLE IN DATABASE SET; ALTER ROLE SET for the tenant without a database counts as set in
-- this database, unless that has another value.
SELECT DISTINCT ON (name) '' AS label, name, value
FROM (
    SELECT ARRAY[CASE WHEN s.setrole = 0 THEN 'all' WHEN t.is_tenant THEN '<tenant>'
                      ELSE pg_catalog.pg_get_userbyid(s.setrole) END,
                 pg_catalog.split_part(c.setting, '=', 1)]::pg_catalog.text[] AS name,
           pg_catalog.substr(c.setting, pg_catalog.strpos(c.setting, '=') + 1) AS value,
           s.setdatabase
    FROM pg_catalog.pg_db_role_setting AS s
    JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database(),
    LATERAL (SELECT pg_catalog.pg_get_userbyid(s.setrole)
                    = pg_catalog.current_setting('rehome.tenant')) AS t(is_tenant),
    LATERAL pg_catalog.unnest(s.setconfig) AS c(setting)
    WHERE s.setdatabase = d.oid OR (s.setdatabase = 0 AND t.is_tenant)
) AS found
ORDER BY name, setdatabase DESC;

-- name: comment
-- Comments: SHA-256 of the text.
SELECT i.type AS label,
       ARRAY[pg_catalog.regexp_replace(i.identity, '\mpg_catalog\.', '', 'g')]::pg_catalog.text[] AS name,
       pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(c.description, 'UTF8')), 'hex') AS value
FROM pg_catalog.pg_description AS c, LATERAL pg_catalog.pg_identify_object(c.classoid, c.objoid, c.objsubid) AS i
WHERE (c.objoid >= 16384 OR (c.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND i.identity = 'public'))
  AND (c.classoid <> 2613  -- large objects: the oid of their catalogue
       OR pg_catalog.current_setting('rehome.rows', true) IS DISTINCT FROM 'off')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                  WHERE e.classid = c.classoid AND e.objid = c.objoid AND e.deptype = 'e');
