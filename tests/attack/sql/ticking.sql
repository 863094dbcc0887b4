-- Code of the tenant that runs in its fenced database without any session of it: autovacuum analyzes two tables in
-- turn, since the function in the index of each updates the other. No row's content changes by that.
CREATE TABLE canary.tick_a (id integer PRIMARY KEY, n integer);
CREATE TABLE canary.tick_b (id integer PRIMARY KEY, n integer);
INSERT INTO canary.tick_a SELECT i, i FROM generate_series(1, 20) AS i;
INSERT INTO canary.tick_b SELECT i, i FROM generate_series(1, 20) AS i;

CREATE FUNCTION canary.report(site text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE LOG 'CANARY % %', @TOKEN@, jsonb_build_object(
        'site', site, 'session', session_user, 'current', current_user, 'database', current_database(),
        'application', current_setting('application_name'), 'powers', '[]'::jsonb);
END
$$;
CREATE FUNCTION canary.at_tick() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    NULL;
END
$$;
CREATE FUNCTION canary.tick(other text, value integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM canary.ticked(other);
    RETURN value;
END
$$;
CREATE FUNCTION canary.ticked(other text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Autovacuum's session is the administrator's, has no name, and acts as the table's owner.
    IF session_user = current_user OR current_setting('application_name') <> ''
       OR current_setting('canary.ticked', true) = txid_current()::text THEN
        RETURN;
    END IF;
    PERFORM set_config('canary.ticked', txid_current()::text, true);
    EXECUTE format('UPDATE canary.%I SET n = n', other);
    IF (SELECT datconnlimit = 0 OR datdba <> @TENANT@::regrole FROM pg_database WHERE datname = current_database())
    THEN
        PERFORM canary.at_tick();
        PERFORM canary.report('done behind the fence');
    END IF;
EXCEPTION WHEN OTHERS THEN
    NULL;
END
$$;
CREATE INDEX ON canary.tick_a ((canary.tick('tick_b', n)));
CREATE INDEX ON canary.tick_b ((canary.tick('tick_a', n)));
