-- What a tenant's database can hold since PostgreSQL 16 and 17. Run as the tenant in its tiny database; {other} is
-- another role's quoted name.
CREATE TABLE sorted (line text COLLATE pg_c_utf8 PRIMARY KEY, note text STORAGE EXTERNAL);
INSERT INTO sorted VALUES ('Zoë'), ('zoë'), ('Ärger'), ('ß');
CREATE INDEX sorted_note ON sorted (upper(note COLLATE pg_c_utf8));

CREATE DOMAIN never_null AS text CONSTRAINT always_there NOT NULL;
CREATE TABLE of_domain (value never_null);
INSERT INTO of_domain VALUES ('x');

CREATE TABLE counted (id integer GENERATED ALWAYS AS IDENTITY, at date, room int4range,
    EXCLUDE USING gist (at WITH =, room WITH &&)) PARTITION BY RANGE (at);
CREATE TABLE counted_2025 PARTITION OF counted FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
INSERT INTO counted (at, room) SELECT '2025-05-05', int4range(i, i + 1) FROM generate_series(1, 5) AS i;

CREATE VIEW from_json AS
    SELECT t.* FROM JSON_TABLE('[{"a": 1}, {"a": 2}]'::jsonb, '$[*]' COLUMNS (place FOR ORDINALITY, a integer PATH '$.a')) AS t;
CREATE VIEW some_json AS SELECT JSON_OBJECT('line': line) IS JSON OBJECT AS is_object FROM sorted;
CREATE FUNCTION merge_sorted(text) RETURNS text LANGUAGE sql BEGIN ATOMIC
    MERGE INTO sorted USING (SELECT $1 AS wanted) AS w ON line = wanted
    WHEN MATCHED THEN UPDATE SET note = 'again'
    WHEN NOT MATCHED BY TARGET THEN INSERT (line) VALUES (wanted)
    RETURNING merge_action();
END;

GRANT MAINTAIN ON sorted TO {other};
GRANT ALL ON of_domain TO {other};
ALTER DEFAULT PRIVILEGES GRANT MAINTAIN ON TABLES TO {other};
