-- What a database can hold besides the sandbox's tiny tenant, for comparing a copy with its source: all of it
-- can be moved, and each object is easily lost or changed on the way. Run by a superuser, in the tenant's
-- tiny database; {tenant} and {other} are quoted role names.

SET ROLE {tenant};

-- Child tables get their parent's columns first when they are created again.
CREATE TABLE animal (id integer, name text);
CREATE TABLE dog (bark text) INHERITS (animal);
ALTER TABLE animal ADD COLUMN legs integer DEFAULT 4;
INSERT INTO animal VALUES (1, 'cat', 4);
INSERT INTO dog (id, name, bark) VALUES (2, 'rex', 'wuff');

CREATE UNLOGGED TABLE scratchpad (line text);
INSERT INTO scratchpad VALUES ('not in the WAL');
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE changed (a integer, dropped text, b text);
ALTER TABLE changed ALTER b SET STORAGE EXTERNAL;
INSERT INTO changed VALUES (1, 'x', 'y');
ALTER TABLE changed DROP COLUMN dropped;
ALTER TABLE changed ADD COLUMN c text DEFAULT 'later';
ALTER TABLE changed SET (toast.autovacuum_enabled = off), REPLICA IDENTITY FULL;

CREATE TABLE deep (id integer, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE deep_2025 PARTITION OF deep FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
    PARTITION BY HASH (id);
CREATE TABLE deep_2025_0 PARTITION OF deep_2025 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE deep_2025_1 PARTITION OF deep_2025 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO deep SELECT i, '2025-05-05' FROM generate_series(1, 20) AS i;
CREATE INDEX deep_at ON deep (at);
CREATE TABLE leaf (deep_id integer, deep_at date, FOREIGN KEY (deep_id, deep_at) REFERENCES deep);
INSERT INTO leaf VALUES (3, '2025-05-05');

CREATE TYPE address AS (street text, number integer);
CREATE TYPE price_range AS RANGE (subtype = numeric);
CREATE DOMAIN short AS varchar(8) DEFAULT 'none' NOT NULL CHECK (VALUE <> '');
CREATE TABLE typed (
    home address, prices price_range, code short, cash money, document xml, name_of regclass, states order_state[],
    EXCLUDE USING gist (prices WITH &&)
);
INSERT INTO typed VALUES (ROW('Main "St"', 1), '[1,5)', 'a', 12.5, '<a>é</a>', 'animal', '{draft,sale}');

CREATE FUNCTION add(a integer, b integer DEFAULT 1) RETURNS integer LANGUAGE sql IMMUTABLE
    RETURN a + b;
CREATE FUNCTION secret() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS
    $$ BEGIN RETURN 'it''s'; END $$;
CREATE PROCEDURE noop() LANGUAGE sql AS $$ SELECT 1 $$;
CREATE AGGREGATE product (integer) (sfunc = int4mul, stype = integer, initcond = '1');
CREATE OPERATOR <+> (leftarg = integer, rightarg = integer, function = add);
CREATE FUNCTION as_text(address) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT $1.street $$;
CREATE CAST (address AS text) WITH FUNCTION as_text(address);
CREATE COLLATION german (provider = icu, locale = 'de-DE');
CREATE TEXT SEARCH CONFIGURATION plain (COPY = simple);
CREATE INDEX changed_sum ON changed (add(a, 2));
CREATE INDEX changed_german ON changed (b COLLATE german DESC NULLS LAST) INCLUDE (a) WITH (fillfactor = 70);
ALTER TABLE changed ADD CONSTRAINT later CHECK (a < 100) NOT VALID;
CREATE VIEW checked AS SELECT a, b FROM changed WHERE a > 0 WITH LOCAL CHECK OPTION;
CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS one WITH NO DATA;
CREATE FUNCTION nag() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER nag AFTER INSERT ON changed DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION nag();
CREATE TRIGGER off_duty BEFORE DELETE ON changed FOR EACH STATEMENT EXECUTE FUNCTION nag();
ALTER TABLE changed DISABLE TRIGGER off_duty;
CREATE TRIGGER each_part AFTER INSERT ON deep FOR EACH ROW EXECUTE FUNCTION nag();

CREATE TABLE private (id integer PRIMARY KEY, owner_name text);
INSERT INTO private VALUES (1, 'a'), (2, 'b');
CREATE POLICY own ON private FOR SELECT TO {other}, {tenant} USING (owner_name = current_user);
CREATE POLICY write_any ON private AS RESTRICTIVE FOR INSERT WITH CHECK (id > 0);
ALTER TABLE private ENABLE ROW LEVEL SECURITY;

COMMENT ON FUNCTION add IS 'a sum';
COMMENT ON CONSTRAINT later ON changed IS 'some day';
COMMENT ON SCHEMA public IS 'the tenant''s';
GRANT SELECT ON private TO {other} WITH GRANT OPTION;
GRANT UPDATE (owner_name) ON private TO {other};
GRANT USAGE ON SEQUENCE invoice_number TO {other};
REVOKE USAGE ON TYPE short FROM PUBLIC;
REVOKE DELETE ON private FROM {tenant};
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO {other};

-- A hole, and a part written twice.
SELECT lo_from_bytea(424242, '\x01');
SELECT lo_put(424242, 9000, '\x0203');
SELECT lo_put(424242, 100, '\x00000000');

RESET ROLE;
-- Set up by whoever made the database.
GRANT ALL ON SCHEMA public TO {tenant};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {tenant};
CREATE TABLE by_administrator (id integer);
GRANT ALL ON by_administrator TO {tenant};
GRANT EXECUTE ON FUNCTION similarity(text, text) TO {other};
CREATE SCHEMA fuzzy;
GRANT USAGE ON SCHEMA fuzzy TO {tenant};
GRANT SELECT ON LARGE OBJECT 424242 TO {other};
COMMENT ON EXTENSION pg_trgm IS 'searching';
CREATE EXTENSION fuzzystrmatch SCHEMA fuzzy;
