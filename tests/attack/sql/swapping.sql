-- Traps behind the fence: a table is locked until a session waits for it, and is another object when that gets it.
CREATE TABLE canary.bait_1 (id integer PRIMARY KEY, note text);
CREATE TABLE canary.bait_2 (LIKE canary.bait_1 INCLUDING ALL);
CREATE TABLE canary.bait_3 (LIKE canary.bait_1 INCLUDING ALL);
CREATE TABLE canary.bait_4 (LIKE canary.bait_1 INCLUDING ALL);
CREATE TABLE canary.bait_5 (LIKE canary.bait_1 INCLUDING ALL);
CREATE TABLE canary.bait_6 (LIKE canary.bait_1 INCLUDING ALL);
CREATE TABLE canary.hook (LIKE canary.bait_1);
CREATE INDEX ON canary.hook (id) WHERE canary.yes('index of a swapped table');

CREATE OR REPLACE FUNCTION canary.at_tick() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bait text;
    place integer;
BEGIN
    BEGIN
        FOR place IN 1..6 LOOP
            IF EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('canary.bait_' || place) AND relkind = 'r')
               AND to_regclass('canary.old_' || place) IS NULL THEN
                EXECUTE format('LOCK TABLE canary.bait_%s IN ACCESS EXCLUSIVE MODE NOWAIT', place);
            END IF;
        END LOOP;
        FOR pause IN 1..400 LOOP
            SELECT c.relname INTO bait FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
            WHERE NOT l.granted AND c.relname ~ '^bait_' AND c.relnamespace = 'canary'::regnamespace LIMIT 1;
            EXIT WHEN bait IS NOT NULL;
            PERFORM pg_sleep(0.005);
        END LOOP;
        IF bait IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'UZ001';  -- releases the locks
        END IF;
        EXECUTE format('ALTER TABLE canary.%I RENAME TO %I', bait, replace(bait, 'bait', 'old'));
        IF right(bait, 1) IN ('1', '3', '5') THEN
            EXECUTE format('CREATE VIEW canary.%I AS SELECT * FROM canary.%I WHERE canary.yes(''swapped view'')',
                           bait, replace(bait, 'bait', 'old'));
        ELSE
            EXECUTE format('CREATE TABLE canary.%I (LIKE canary.bait_6)', bait);
            EXECUTE format('CREATE INDEX ON canary.%I (id) WHERE canary.yes(''index of a swapped table'')', bait);
        END IF;
        PERFORM canary.report('trap sprung');
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
END
$$;
