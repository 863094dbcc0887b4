-- Everything that the planner or ANALYZE calls, or folds, while a table is only read.
CREATE TABLE planned (id integer PRIMARY KEY, name text, amount numeric DEFAULT canary.same('default', 1.5));
INSERT INTO planned SELECT i, 'name ' || i FROM generate_series(1, 40) AS i;
CREATE INDEX ON planned (id) WHERE canary.yes('index predicate');
CREATE INDEX ON planned ((id + canary.same('index expression, folded', 1)));
CREATE INDEX ON planned ((canary.same('index expression', name)));
CREATE INDEX ON planned USING gin (name gin_trgm_ops) WHERE canary.yes('gin predicate');
CREATE INDEX ON planned USING hash ((canary.same('hash index', id)));
CREATE INDEX ON planned USING brin ((canary.same('brin index', id)));
CREATE UNIQUE INDEX ON planned (id, (canary.same('unique index, folded', 7)));
ALTER TABLE planned ADD CONSTRAINT apart EXCLUDE USING btree (id WITH =) WHERE (canary.yes('exclusion'));
ALTER TABLE planned ADD CONSTRAINT checked CHECK (canary.yes('check, folded') AND id > 0);
CREATE STATISTICS planned_mixed ON id, (name || canary.same('statistics, folded', 'x'::text)) FROM planned;
CREATE STATISTICS planned_one ON (canary.same('statistics', id)) FROM planned;
ALTER TABLE planned ADD COLUMN twice integer GENERATED ALWAYS AS (canary.same('generated', id) * 2) STORED;

CREATE TABLE planned_child (more text) INHERITS (planned);
ALTER TABLE planned_child ADD CONSTRAINT child_checked CHECK (canary.yes('check of a child, folded'));
CREATE INDEX ON planned_child (id) WHERE canary.yes('index predicate of a child');
INSERT INTO planned_child SELECT i, 'child ' || i FROM generate_series(101, 110) AS i;

CREATE TABLE parted (id integer, region text) PARTITION BY LIST ((canary.same('partition key', region)));
CREATE TABLE parted_here PARTITION OF parted FOR VALUES IN ('here');
CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
CREATE INDEX ON parted (id) WHERE canary.yes('index predicate of a partition');
INSERT INTO parted SELECT i, CASE WHEN i % 2 = 0 THEN 'here' ELSE 'there' END FROM generate_series(1, 20) AS i;

CREATE FUNCTION canary.apart(a integer, b integer) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM canary.look(''subtype_diff''); RETURN a - b; END';
CREATE TYPE odd_range AS RANGE (subtype = integer, subtype_diff = canary.apart);
CREATE TABLE ranged (id integer PRIMARY KEY, span odd_range);
INSERT INTO ranged SELECT i, odd_range(i, i + 5) FROM generate_series(1, 40) AS i;
CREATE INDEX ON ranged USING gist (span);
