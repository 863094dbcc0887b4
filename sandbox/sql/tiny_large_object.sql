-- A large object with a comment: data outside every table, which logical replication does not carry.

SELECT lo_from_bytea(0, decode(repeat('00ff1020', 2000), 'hex')) AS oid;
DO $$
DECLARE
    number oid := (SELECT max(oid) FROM pg_largeobject_metadata);
BEGIN
    EXECUTE format('COMMENT ON LARGE OBJECT %s IS %L', number, 'A scanned contract');
END
$$;
