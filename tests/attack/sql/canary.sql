-- The canary: functions of the tenant that find out with whose rights they run, and try to use them.
-- Run by the tenant. @TOKEN@, @TENANT@ and @MARKS@ are SQL strings: what identifies its reports in a server's log, the
-- tenant's role, and a directory that the server's account may write to. What it tries is rolled back, except programs
-- and files, which leave a file there. A report goes into the server's log: it survives a rollback, and READ ONLY does
-- not prevent it.

CREATE SCHEMA canary;

-- What the current role may do beyond the tenant. A role whose name begins with rehome_ may bypass row security and
-- read the large objects of this database: that shows it only the tenant's own data.
CREATE FUNCTION canary.powers() RETURNS text[] LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me name := current_user;
    found text[] := '{}';
    attempt text[];
    mark text := @MARKS@ || '/' || @TOKEN@;
BEGIN
    SELECT array_remove(ARRAY[
        CASE WHEN rolsuper THEN 'is a superuser' END,
        CASE WHEN rolcreaterole THEN 'has CREATEROLE' END,
        CASE WHEN rolcreatedb THEN 'has CREATEDB' END,
        CASE WHEN rolreplication THEN 'has REPLICATION' END,
        CASE WHEN rolbypassrls AND me !~ '^rehome_' THEN 'has BYPASSRLS' END], NULL)
    INTO found FROM pg_roles WHERE rolname = me;
    found := found || ARRAY(
        SELECT 'is a member of ' || rolname FROM pg_roles
        WHERE rolname NOT IN (me, @TENANT@, 'pg_database_owner') AND rolname !~ '^rehome_'
          AND pg_has_role(me, oid, 'MEMBER') AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = me));
    FOREACH attempt SLICE 1 IN ARRAY ARRAY[
        ['ran a program', format('COPY (SELECT 1) TO PROGRAM %L', 'touch ' || quote_literal(mark || '.program'))],
        ['wrote a file', format('COPY (SELECT 1) TO %L', mark || '.copy')],
        ['wrote a file of a large object', format('SELECT lo_export(lo_creat(-1), %L)', mark || '.lo')],
        ['read a file', 'SELECT pg_read_file(''PG_VERSION'')'],
        ['read the roles'' passwords', 'SELECT count(rolpassword) FROM pg_authid'],
        ['read all large objects', 'SELECT count(data) FROM pg_largeobject'],
        ['made a role', 'CREATE ROLE canary_was_here LOGIN'],
        ['altered the administrator', 'ALTER ROLE postgres CONNECTION LIMIT 17'],
        ['altered another database', 'ALTER DATABASE postgres CONNECTION LIMIT 17'],
        ['granted itself the server''s files', format('GRANT pg_read_server_files TO %I', @TENANT@)]]
    LOOP
        CONTINUE WHEN attempt[1] = 'read all large objects' AND me ~ '^rehome_';
        BEGIN
            EXECUTE attempt[2];
            found := found || attempt[1];
            RAISE EXCEPTION USING ERRCODE = 'UZ001';
        EXCEPTION WHEN OTHERS THEN
            NULL;  -- refused, as it must be; or done, recorded and undone
        END;
    END LOOP;
    RETURN found;
END
$$;

-- Check, once for each kind of session, and report. `site` is the object that contains the call.
CREATE FUNCTION canary.look(site text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    free name := current_user;
    seen text := current_setting('canary.seen', true);
    this text;
    way text;
    powers text[] := '{}';
    here text[];
BEGIN
    BEGIN
        EXECUTE 'SET ROLE NONE';
        free := current_user;
        RAISE EXCEPTION USING ERRCODE = 'UZ001';
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    this := format('[%s|%s|%s|%s]', site, session_user, current_user, free);
    IF position(this IN coalesce(seen, '')) > 0 THEN
        RETURN;
    END IF;
    BEGIN
        PERFORM set_config('canary.seen', coalesce(seen, '') || this, false);
    EXCEPTION WHEN OTHERS THEN
        NULL;  -- a parallel worker may set nothing
    END;
    FOREACH way IN ARRAY ARRAY['SELECT 1', 'SET ROLE NONE', 'RESET ROLE', 'SET SESSION AUTHORIZATION DEFAULT',
                               'RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION postgres',
                               'SET ROLE postgres', 'SET ROLE pg_execute_server_program',
                               'SET ROLE pg_read_all_data', 'RESET ALL'] LOOP
        here := '{}';
        BEGIN
            EXECUTE way;
            here := canary.powers();
            RAISE EXCEPTION USING ERRCODE = 'UZ001';
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
        IF here <> '{}' THEN
            powers := powers || format('after %s: %s', way, array_to_string(here, ', '));
        END IF;
    END LOOP;
    RAISE LOG 'CANARY % %', @TOKEN@, jsonb_build_object(
        'site', site, 'session', session_user, 'current', current_user, 'database', current_database(),
        'application', current_setting('application_name'), 'powers', to_jsonb(powers));
END
$$;

-- Declared IMMUTABLE, so that the planner calls them with constants.
CREATE FUNCTION canary.yes(site text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM canary.look(site);
    RETURN true;
END
$$;
CREATE FUNCTION canary.same(site text, value anyelement) RETURNS anyelement LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM canary.look(site);
    RETURN value;
END
$$;
CREATE FUNCTION canary.triggered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM canary.look(TG_ARGV[0]);
    RETURN NEW;
END
$$;
