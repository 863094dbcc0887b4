-- What would open a fence for the owner of the database. Each is tried on its own.
CREATE OR REPLACE FUNCTION canary.at_tick() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    attempt text;
BEGIN
    FOREACH attempt IN ARRAY ARRAY['ALTER DATABASE %1$I CONNECTION LIMIT -1', 'GRANT CONNECT ON DATABASE %1$I TO PUBLIC',
                                   'ALTER DATABASE %1$I SET search_path = canary', 'ALTER ROLE CURRENT_USER LOGIN'] LOOP
        BEGIN
            EXECUTE format(attempt, current_database());
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
END
$$;
