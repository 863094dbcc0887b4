-- Casts, operators, and names of pg_catalog in public and in a schema that comes before it in the search path.
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TYPE pair AS (a integer, b integer);
CREATE FUNCTION canary.mood_text(mood) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM canary.look(''implicit cast''); RETURN ''moody''; END';
CREATE CAST (mood AS text) WITH FUNCTION canary.mood_text(mood) AS IMPLICIT;
CREATE FUNCTION canary.pair_number(pair) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM canary.look(''assignment cast''); RETURN 1; END';
CREATE CAST (pair AS bigint) WITH FUNCTION canary.pair_number(pair) AS ASSIGNMENT;
CREATE TABLE moody (id integer PRIMARY KEY, mood mood, pairs pair);
INSERT INTO moody SELECT i, 'good', ROW(i, i)::pair FROM generate_series(1, 10) AS i;

CREATE SCHEMA first;
DO $$
DECLARE
    place text;
BEGIN
    FOREACH place IN ARRAY ARRAY['public', 'first'] LOOP
        EXECUTE format($f$
            CREATE FUNCTION %1$s.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
                'BEGIN PERFORM canary.look(''shadow of format''); RETURN pg_catalog.format($1, VARIADIC $2); END';
            CREATE FUNCTION %1$s.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS
                'BEGIN PERFORM canary.look(''shadow of set_config''); RETURN pg_catalog.set_config($1, $2, $3); END';
            CREATE FUNCTION %1$s.current_setting(text) RETURNS text LANGUAGE plpgsql STABLE AS
                'BEGIN PERFORM canary.look(''shadow of current_setting''); RETURN pg_catalog.current_setting($1); END';
            CREATE FUNCTION %1$s.current_setting(text, boolean) RETURNS text LANGUAGE plpgsql STABLE AS
                'BEGIN PERFORM canary.look(''shadow of current_setting''); RETURN pg_catalog.current_setting($1, $2); END';
            CREATE FUNCTION %1$s.hashtextextended(text, bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
                'BEGIN PERFORM canary.look(''shadow of hashtextextended''); RETURN 0; END';
            CREATE FUNCTION %1$s.sha256(bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS
                'BEGIN PERFORM canary.look(''shadow of sha256''); RETURN $1; END';
            CREATE FUNCTION %1$s.pg_export_snapshot() RETURNS text LANGUAGE plpgsql AS
                'BEGIN PERFORM canary.look(''shadow of pg_export_snapshot''); RETURN pg_catalog.pg_export_snapshot(); END';
            CREATE FUNCTION %1$s.pg_database_size(oid) RETURNS bigint LANGUAGE plpgsql AS
                'BEGIN PERFORM canary.look(''shadow of pg_database_size''); RETURN 1; END';
            CREATE FUNCTION %1$s.concat(text, text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
                'BEGIN PERFORM canary.look(''shadow of concat''); RETURN $1 || $2; END';
            CREATE VIEW %1$s.pg_class AS SELECT c.*, canary.yes('shadow of pg_class') AS looked FROM pg_catalog.pg_class c;
            CREATE VIEW %1$s.pg_roles AS SELECT r.*, canary.yes('shadow of pg_roles') AS looked FROM pg_catalog.pg_roles r;
            CREATE VIEW %1$s.pg_extension AS
                SELECT e.*, canary.yes('shadow of pg_extension') AS looked FROM pg_catalog.pg_extension e;
            CREATE VIEW %1$s.pg_stat_activity AS
                SELECT a.*, canary.yes('shadow of pg_stat_activity') AS looked FROM pg_catalog.pg_stat_activity a;
            CREATE FUNCTION %1$s.same_name(name, name) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
                'BEGIN PERFORM canary.look(''operator on names''); RETURN $1 OPERATOR(pg_catalog.=) $2; END';
            CREATE OPERATOR %1$s.= (LEFTARG = name, RIGHTARG = name, FUNCTION = %1$s.same_name);
            CREATE FUNCTION %1$s.same_text(name, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
                'BEGIN PERFORM canary.look(''operator on a name and text''); RETURN $1::text OPERATOR(pg_catalog.=) $2; END';
            CREATE OPERATOR %1$s.= (LEFTARG = name, RIGHTARG = text, FUNCTION = %1$s.same_text);
            CREATE FUNCTION %1$s.not_same(char, char) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
                'BEGIN PERFORM canary.look(''operator on characters''); RETURN true; END';
            CREATE OPERATOR %1$s.<> (LEFTARG = char, RIGHTARG = char, FUNCTION = %1$s.not_same);
            CREATE FUNCTION %1$s.joined(varchar, varchar) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
                'BEGIN PERFORM canary.look(''operator on varchar''); RETURN $1::text OPERATOR(pg_catalog.||) $2::text; END';
            CREATE OPERATOR %1$s.|| (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = %1$s.joined);
        $f$, place);
    END LOOP;
    EXECUTE pg_catalog.format('ALTER DATABASE %I SET search_path = first, public, pg_catalog', current_database());
    EXECUTE pg_catalog.format('ALTER ROLE CURRENT_USER IN DATABASE %I SET search_path = first, public, pg_catalog',
                              current_database());
END
$$;
