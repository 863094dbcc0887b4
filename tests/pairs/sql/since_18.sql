-- What a tenant's database can hold since PostgreSQL 18. Run as the tenant, after since_17.sql.
CREATE TABLE computed (
    id integer PRIMARY KEY,
    price numeric NOT NULL,
    twice numeric GENERATED ALWAYS AS (price * 2) VIRTUAL,
    half numeric GENERATED ALWAYS AS (price / 2) STORED,
    shown text GENERATED ALWAYS AS ('#' || id),
    CHECK (twice > 0)
);
INSERT INTO computed VALUES (1, 1.5), (2, 2.25);

CREATE TABLE filled (
    id integer CONSTRAINT must_have_id NOT NULL,
    own integer CONSTRAINT only_here NOT NULL NO INHERIT,
    late integer,
    plain integer NOT NULL
);
INSERT INTO filled VALUES (1, 1, NULL, 1);
ALTER TABLE filled ADD CONSTRAINT from_now_on NOT NULL late NOT VALID;
CREATE TABLE filled_child () INHERITS (filled);
CREATE TABLE filled_parts (id integer CONSTRAINT part_id NOT NULL, at date) PARTITION BY LIST (id);
CREATE TABLE filled_part_1 PARTITION OF filled_parts FOR VALUES IN (1);
CREATE TABLE filled_part_2 (at date, id integer CONSTRAINT own_name NOT NULL);
ALTER TABLE filled_parts ATTACH PARTITION filled_part_2 FOR VALUES IN (2);
COMMENT ON CONSTRAINT must_have_id ON filled IS 'named';

CREATE TABLE booked (
    room int4range, during daterange, guest text,
    CONSTRAINT booked_key PRIMARY KEY (room, during WITHOUT OVERLAPS),
    UNIQUE (room, during)
);
INSERT INTO booked VALUES ('[1,2)', '[2025-01-01,2025-02-01)', 'a'), ('[1,2)', '[2025-02-01,2025-03-01)', 'b');
CREATE TABLE cleaned (
    room int4range, during daterange,
    CONSTRAINT cleaned_room FOREIGN KEY (room, PERIOD during) REFERENCES booked (room, PERIOD during)
);
INSERT INTO cleaned VALUES ('[1,2)', '[2025-01-15,2025-02-15)');

CREATE TABLE trusting (
    id integer, computed_id integer,
    CONSTRAINT positive CHECK (id > 0) NOT ENFORCED,
    CONSTRAINT of_computed FOREIGN KEY (computed_id) REFERENCES computed NOT ENFORCED
);
INSERT INTO trusting VALUES (-1, 99);

CREATE TABLE folded (name text COLLATE pg_unicode_fast DEFAULT 'x', at uuid DEFAULT uuidv7());
INSERT INTO folded VALUES ('Straße', '019a0000-0000-7000-8000-000000000000');
CREATE INDEX folded_name ON folded (casefold(name));
ALTER DEFAULT PRIVILEGES GRANT SELECT ON LARGE OBJECTS TO {other};
