-- Everything that runs where a copy follows its source: in the worker that applies changes, as rows arrive there.
CREATE DOMAIN arriving AS text CHECK (canary.yes('domain of an arriving row') AND VALUE <> 'never');
CREATE TABLE arrived (
    id       integer PRIMARY KEY CHECK (canary.same('check of an arriving row', id) > 0),
    word     arriving,
    computed text GENERATED ALWAYS AS (canary.same('generated column of an arriving row', 'x'::text)) STORED
);
CREATE INDEX ON arrived (canary.same('index expression of an arriving row', word::text));
CREATE INDEX ON arrived (id) WHERE canary.same('index predicate of an arriving row', id) > 0;
CREATE TRIGGER at_arrival BEFORE INSERT ON arrived FOR EACH ROW EXECUTE FUNCTION canary.triggered('trigger, not here');
INSERT INTO arrived (id, word) SELECT i, 'word' FROM generate_series(1, 5) AS i;
-- Rows without a key are looked for by their values, in an index whose other columns are expressions.
CREATE TABLE "without"" a key" (
    n    integer CHECK (canary.same('check of a row without a key', n) > 0),
    word arriving
);
CREATE INDEX ON "without"" a key" (n, canary.same('index expression of a row without a key', word::text));
INSERT INTO "without"" a key" SELECT i % 3 + 1, 'word' FROM generate_series(1, 9) AS i;
-- What a tiny tenant lacks for a copy that follows.
SELECT lo_unlink(oid) FROM pg_largeobject_metadata;
