-- Everything that runs while rows are written, dumped or restored.
CREATE DOMAIN watched AS text CHECK (canary.yes('domain') AND VALUE <> 'never');
CREATE DOMAIN watched_default AS integer DEFAULT canary.same('default of a domain', 3);
CREATE TABLE written (
    id       integer PRIMARY KEY CHECK (canary.same('check', id) > 0),
    word     watched,
    words    watched[],
    number   watched_default,
    made     text DEFAULT canary.same('column default', 'made'::text),
    computed text GENERATED ALWAYS AS (canary.same('generated column', 'x'::text)) STORED
);
INSERT INTO written (id, word, words) SELECT i, 'word', ARRAY['a', 'b']::watched[] FROM generate_series(1, 20) AS i;
CREATE TRIGGER at_rows BEFORE INSERT OR UPDATE ON written FOR EACH ROW EXECUTE FUNCTION canary.triggered('trigger');
CREATE TRIGGER at_statement AFTER INSERT OR UPDATE OR TRUNCATE ON written
    FOR EACH STATEMENT EXECUTE FUNCTION canary.triggered('statement trigger');
CREATE TRIGGER in_replicas BEFORE INSERT ON written FOR EACH ROW EXECUTE FUNCTION canary.triggered('replica trigger');
ALTER TABLE written ENABLE ALWAYS TRIGGER at_rows, ENABLE ALWAYS TRIGGER at_statement,
                    ENABLE REPLICA TRIGGER in_replicas;
CREATE TABLE referring (id integer PRIMARY KEY, written integer REFERENCES written ON UPDATE CASCADE);
INSERT INTO referring SELECT i, i FROM generate_series(1, 20) AS i;
CREATE TRIGGER at_referring AFTER INSERT ON referring FOR EACH ROW EXECUTE FUNCTION canary.triggered('constraint');

CREATE TABLE ruled (id integer PRIMARY KEY);
INSERT INTO ruled SELECT generate_series(1, 5);
CREATE RULE also AS ON INSERT TO ruled DO ALSO SELECT canary.look('rule');
CREATE RULE at_update AS ON UPDATE TO ruled DO ALSO SELECT canary.look('rule of an update');

CREATE TABLE guarded (id integer PRIMARY KEY, note text);
INSERT INTO guarded SELECT i, 'note ' || i FROM generate_series(1, 10) AS i;
CREATE POLICY looking ON guarded USING (canary.yes('policy')) WITH CHECK (canary.yes('policy, check'));
CREATE POLICY narrow ON guarded AS RESTRICTIVE FOR SELECT USING (canary.yes('restrictive policy') AND id > 3);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE VIEW seen AS SELECT id, canary.yes('view') AS looked FROM written WHERE canary.yes('view, folded');
CREATE VIEW seen_barrier WITH (security_barrier) AS SELECT * FROM seen WHERE canary.yes('barrier view');
CREATE MATERIALIZED VIEW kept AS SELECT id, canary.yes('materialized view') AS looked FROM written;
CREATE INDEX ON kept (id) WHERE canary.yes('index predicate of a materialized view');
CREATE FUNCTION canary.lying() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS 'SELECT canary.look(''inlined SQL function''); SELECT 1';
CREATE INDEX ON written ((id + canary.lying()));

CREATE PROCEDURE canary.procedure() LANGUAGE plpgsql AS 'BEGIN PERFORM canary.look(''procedure''); END';
CREATE AGGREGATE canary.agg(integer) (sfunc = int4pl, stype = integer, initcond = '0');
SELECT lo_from_bytea(0, 'one of the tenant''s'), lo_from_bytea(0, 'nobody may read this one');
DO $$
DECLARE
    number oid;
BEGIN
    FOR number IN SELECT oid FROM pg_largeobject_metadata ORDER BY oid DESC LIMIT 1 LOOP
        EXECUTE format('REVOKE ALL ON LARGE OBJECT %s FROM CURRENT_USER', number);
        EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO PUBLIC', number);
    END LOOP;
END
$$;
