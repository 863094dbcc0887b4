-- The tenant's code, run by a short-lived role, tries to keep that role, or to make it impossible to drop.
CREATE FUNCTION canary.keep(site text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    session_role name := session_user;
    was name := current_user;
    way text;
    attempt text;
BEGIN
    PERFORM canary.look(site);
    IF session_role !~ '^rehome_' OR current_setting('canary.kept', true) = 'yes' THEN
        RETURN true;
    END IF;
    FOREACH way IN ARRAY ARRAY['SET ROLE NONE', 'SET SESSION AUTHORIZATION DEFAULT', format('SET ROLE %I', @TENANT@)]
    LOOP
        FOREACH attempt IN ARRAY ARRAY[
            'ALTER ROLE %1$I PASSWORD ''known''', 'ALTER ROLE CURRENT_USER PASSWORD ''known''',
            'ALTER ROLE SESSION_USER VALID UNTIL ''infinity''', 'ALTER ROLE %1$I LOGIN',
            'ALTER ROLE %1$I SET search_path = canary', 'ALTER ROLE CURRENT_USER SET role = %2$L',
            'CREATE TABLE public.squat (id integer)', 'CREATE SCHEMA squatting AUTHORIZATION %1$I',
            'GRANT ALL ON SCHEMA public TO %1$I WITH GRANT OPTION', 'GRANT SELECT ON ALL TABLES IN SCHEMA public TO %1$I',
            'CREATE SCHEMA lent', 'GRANT ALL ON SCHEMA lent TO %1$I',
            'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO %1$I',
            'ALTER DEFAULT PRIVILEGES FOR ROLE %1$I GRANT SELECT ON TABLES TO PUBLIC',
            'GRANT CONNECT ON DATABASE %3$I TO %1$I', 'GRANT %1$I TO %2$I WITH ADMIN OPTION',
            'GRANT %2$I TO %1$I WITH ADMIN OPTION', 'ALTER DATABASE %3$I OWNER TO %1$I',
            'ALTER FUNCTION canary.powers() OWNER TO %1$I', 'CREATE POLICY squat ON canary.kept TO %1$I USING (true)',
            'SELECT lo_create(0)', 'SELECT set_config(''canary.kept'', ''yes'', false)'] LOOP
            BEGIN
                EXECUTE way;
                EXECUTE format(attempt, session_role, @TENANT@, current_database());
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END;
        END LOOP;
    END LOOP;
    EXECUTE format('SET ROLE %I', was);
    RETURN true;
END
$$;
CREATE FUNCTION canary.keep_same(site text, value integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM canary.keep(site);
    RETURN value;
END
$$;
CREATE TABLE canary.kept (id integer CHECK (canary.keep('check that keeps a role')));
INSERT INTO canary.kept SELECT generate_series(1, 10);
CREATE TABLE canary.kept_too (id integer PRIMARY KEY, n integer);
INSERT INTO canary.kept_too SELECT i, i FROM generate_series(1, 10) AS i;
CREATE INDEX ON canary.kept_too (id) WHERE canary.keep_same('predicate that keeps a role', 1) = 1;
CREATE INDEX ON canary.kept_too ((canary.keep_same('index that keeps a role', n)));
