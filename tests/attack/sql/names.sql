-- Names and comments that break out of anything that does not quote them, and that control a terminal.
DO $do$
DECLARE
    nasty text[] := ARRAY[
        E'\\! touch @MARK@.psql', E'line one\nline two; DROP TABLE res_users; --', E'"; DROP SCHEMA public CASCADE; --',
        $q$'; SELECT canary.look('name'); --$q$, '$body$ $1 %s %I {0}', E'\x1b]52;c;aGVsbG8=\x07\x1b[2J', E'\u202egnp.exe',
        E'\\\n\\.\n\\connect postgres', E'a\\', E'-- \r\n\\i /etc/passwd', E'\x7f\u0085\u2028', E'\ufeff\uffff'];
    one text;
    place integer := 0;
BEGIN
    FOREACH one IN ARRAY nasty LOOP
        place := place + 1;
        EXECUTE format('CREATE SCHEMA %I', left(one, 20) || place);
        EXECUTE format('CREATE TABLE %I.%I (%I integer PRIMARY KEY, note text DEFAULT %L)',
                       left(one, 20) || place, one, one, one);
        EXECUTE format('INSERT INTO %I.%I SELECT 1, %L', left(one, 20) || place, one, one);
        EXECUTE format('COMMENT ON TABLE %I.%I IS %L', left(one, 20) || place, one, one);
        EXECUTE format('COMMENT ON COLUMN %I.%I.%I IS %L', left(one, 20) || place, one, one, one);
        EXECUTE format('CREATE INDEX %I ON %I.%I (%I) WHERE canary.yes(%L)',
                       'i ' || one, left(one, 20) || place, one, one, 'index with an odd name');
        EXECUTE format('CREATE FUNCTION %I.%I() RETURNS text LANGUAGE sql AS %L', left(one, 20) || place, one,
                       format('SELECT %L::text', one));
        EXECUTE format('CREATE TYPE %I.%I AS ENUM (%L)', left(one, 20) || place, 'e ' || one, left(one, 30));
        EXECUTE format('CREATE VIEW %I.%I AS SELECT * FROM %I.%I', left(one, 20) || place, 'v ' || one,
                       left(one, 20) || place, one);
        EXECUTE format('CREATE SEQUENCE %I.%I', left(one, 20) || place, 's ' || one);
        EXECUTE format('CREATE TRIGGER %I BEFORE INSERT ON %I.%I FOR EACH ROW EXECUTE FUNCTION canary.triggered(%L)',
                       't ' || one, left(one, 20) || place, one, one);
        EXECUTE format('CREATE POLICY %I ON %I.%I USING (true)', 'p ' || one, left(one, 20) || place, one);
        EXECUTE format('CREATE RULE %I AS ON DELETE TO %I.%I DO INSTEAD NOTHING', 'r ' || one,
                       left(one, 20) || place, one);
    END LOOP;
    EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(),
                   E'\\! touch @MARK@.psql\n\x1b[2J"; DROP DATABASE postgres; --');
END
$do$;
