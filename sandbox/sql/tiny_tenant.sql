-- A tenant's database with little data and much variety: everything a move of a database can lose.
-- Run by the tenant's own role, an ordinary one, in an empty database that it owns.
-- The first four tables have the columns of Odoo 19 that the sandbox's instance uses.

CREATE EXTENSION unaccent;
CREATE EXTENSION pg_trgm;

CREATE TABLE ir_config_parameter (
    id    serial PRIMARY KEY,
    key   varchar NOT NULL UNIQUE,
    value text NOT NULL
);
INSERT INTO ir_config_parameter (key, value) VALUES
    ('database.uuid', gen_random_uuid()::text),
    ('web.base.url', 'http://localhost:8069');

CREATE TABLE res_partner (
    id                    serial PRIMARY KEY,
    commercial_partner_id integer REFERENCES res_partner,
    parent_id             integer REFERENCES res_partner ON DELETE SET NULL,
    name                  varchar,
    complete_name         varchar,
    ref                   varchar,
    type                  varchar,
    email                 varchar,
    active                boolean DEFAULT true,
    autopost_bills        varchar NOT NULL,
    comment               text,
    create_date           timestamp,
    CONSTRAINT check_name CHECK (type <> 'contact' OR name IS NOT NULL)
);
INSERT INTO res_partner
    (commercial_partner_id, name, complete_name, ref, type, email, autopost_bills, comment, create_date)
SELECT i, 'Partner ' || i, 'Partner ' || i, 'R' || i, 'contact', 'p' || i || '@example.com', 'ask',
       CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E'tab\there, line\nthere, back\\slash, \\N'
                  ELSE 'Grüße, 東京, 🐘, %s {0} $1 ''quoted''' END,
       timestamp '2025-01-01' + i * interval '1 hour'
FROM generate_series(1, 200) AS i;
UPDATE res_partner SET parent_id = id - 1 WHERE id % 5 = 0;
CREATE INDEX ON res_partner (parent_id);
CREATE INDEX ON res_partner (lower(email)) WHERE active;
CREATE INDEX ON res_partner USING gin (name gin_trgm_ops);
COMMENT ON TABLE res_partner IS 'Contact';
COMMENT ON COLUMN res_partner.ref IS 'Reference: a customer''s own';

CREATE TABLE res_users (
    id          serial PRIMARY KEY,
    login       varchar NOT NULL UNIQUE,
    password    varchar,
    partner_id  integer NOT NULL REFERENCES res_partner ON DELETE RESTRICT,
    active      boolean DEFAULT true
);
INSERT INTO res_users (login, partner_id) SELECT 'user' || i, i FROM generate_series(1, 7) AS i;

-- A relation table as older Odoo versions made them: a unique index, no primary key.
CREATE TABLE res_company_users_rel (
    cid     integer NOT NULL,
    user_id integer NOT NULL REFERENCES res_users ON DELETE CASCADE
);
CREATE UNIQUE INDEX ON res_company_users_rel (cid, user_id);
INSERT INTO res_company_users_rel SELECT 1, id FROM res_users;

-- A table with neither, holding equal rows.
CREATE TABLE import_log (at timestamptz, line text);
INSERT INTO import_log SELECT timestamptz '2025-06-01 12:00+02', 'twice' FROM generate_series(1, 2);
INSERT INTO import_log VALUES (NULL, NULL);

CREATE TYPE order_state AS ENUM ('draft', 'sent', 'sale', 'cancel');
CREATE DOMAIN positive_amount AS numeric(12, 2) CHECK (VALUE >= 0);

CREATE TABLE sale_order (
    id         bigint GENERATED ALWAYS AS IDENTITY (START 1000 INCREMENT 7) PRIMARY KEY,
    partner_id integer NOT NULL REFERENCES res_partner DEFERRABLE INITIALLY DEFERRED,
    state      order_state NOT NULL DEFAULT 'draft',
    untaxed    positive_amount NOT NULL,
    tax        numeric NOT NULL,
    total      numeric GENERATED ALWAYS AS (untaxed + tax) STORED,
    changed    integer NOT NULL DEFAULT 0
);
ALTER TABLE sale_order ALTER COLUMN partner_id SET STATISTICS 500;
CREATE STATISTICS sale_order_state ON partner_id, state FROM sale_order;
INSERT INTO sale_order (partner_id, state, untaxed, tax)
SELECT 1 + i % 200, (ARRAY['draft', 'sent', 'sale', 'cancel']::order_state[])[1 + i % 4], i * 1.25, i * 0.25
FROM generate_series(1, 300) AS i;

CREATE FUNCTION count_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := OLD.changed + 1;
    RETURN NEW;
END
$$;
CREATE TRIGGER count_change BEFORE UPDATE ON sale_order FOR EACH ROW EXECUTE FUNCTION count_change();
UPDATE sale_order SET tax = tax + 1 WHERE state = 'sale';

CREATE TABLE every_type (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    small      smallint,
    big        bigint,
    exact      numeric,
    single     real,
    "double"   double precision,
    bytes      bytea,
    document   jsonb,
    raw_json   json,
    words      tsvector,
    names      text[],
    numbers    integer[][],
    span       int4range,
    address    inet,
    day        date,
    moment     timestamptz,
    length     interval,
    bits       bit varying(8),
    place      point,
    padded     char(10)
);
INSERT INTO every_type VALUES
    (gen_random_uuid(), -32768, 9223372036854775807, 'NaN', 'Infinity', 0.1::float8 + 0.2::float8,
     '\x00ff00', '{"b": [1, null, "\u00e9"], "a": 1.50}', '{"b": 1,  "a": 2}', to_tsvector('simple', 'a fat cat'),
     ARRAY['x', NULL, '{"}'], ARRAY[[1, 2], [3, 4]], '[1,10)', '10.0.0.0/8', '-infinity', 'infinity',
     '1 year -2 days 03:04:05.678', B'10101', '(1.5,-2.5)', 'pad'),
    (gen_random_uuid(), 0, 0, 12345678901234567890.000100, '-0', '-0', '', '{}', '[]', '', '{}', '{}', 'empty',
     '::1', '0044-03-15 BC', '1900-01-01 00:00:00.000001+00', '0', B'', '(0,0)', ''),
    (gen_random_uuid(), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL);

-- Rows large enough to be stored out of line.
CREATE TABLE ir_attachment (id serial PRIMARY KEY, name varchar, content text, raw bytea);
INSERT INTO ir_attachment (name, content, raw)
SELECT 'file ' || i, string_agg(md5(i || '-' || n), ''), decode(string_agg(md5(n || '-' || i), ''), 'hex')
FROM generate_series(1, 5) AS i, generate_series(1, 1000) AS n GROUP BY i;

CREATE TABLE mail_message (id bigint NOT NULL, year integer NOT NULL, body text, PRIMARY KEY (id, year))
    PARTITION BY RANGE (year);
CREATE TABLE mail_message_2024 PARTITION OF mail_message FOR VALUES FROM (2024) TO (2025);
CREATE TABLE mail_message_rest PARTITION OF mail_message DEFAULT;
INSERT INTO mail_message SELECT i, 2023 + i % 3, 'message ' || i FROM generate_series(1, 90) AS i;

-- Names that must be quoted, in a schema of their own.
CREATE SCHEMA "Customer's ""own""";
CREATE TABLE "Customer's ""own"""."Table; %s $1 é" ("Select" integer PRIMARY KEY, "a b" text);
INSERT INTO "Customer's ""own"""."Table; %s $1 é" VALUES (1, 'one'), (2, NULL);

-- Sequences in every state: counting down, cycling, drawn from by hand, never used.
CREATE SEQUENCE countdown AS smallint INCREMENT -3 MAXVALUE 100 MINVALUE -100 START 100 CYCLE;
SELECT nextval('countdown'), nextval('countdown');
CREATE SEQUENCE never_used START 42;
CREATE SEQUENCE invoice_number CACHE 1;
SELECT setval('invoice_number', 9000, false);

CREATE VIEW active_partner WITH (security_barrier) AS SELECT id, name FROM res_partner WHERE active;
CREATE MATERIALIZED VIEW sales_per_state AS
    SELECT state, count(*) AS orders, sum(total) AS total FROM sale_order GROUP BY state;
CREATE UNIQUE INDEX ON sales_per_state (state);
CREATE RULE keep_log AS ON DELETE TO import_log DO INSTEAD NOTHING;
ALTER TABLE res_partner SET (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05);

GRANT SELECT ON active_partner TO PUBLIC;
GRANT SELECT (id, login) ON res_users TO PUBLIC;
REVOKE EXECUTE ON FUNCTION count_change() FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC;

-- Settings that belong to the database, and to the role in this database only.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = "$user", public', current_database());
    EXECUTE format('ALTER ROLE %I IN DATABASE %I SET timezone = %L', current_user, current_database(),
                   'Europe/Paris');
    EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), 'A tenant''s database; 100% theirs');
END
$$;
