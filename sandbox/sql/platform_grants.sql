-- What the consumer's role may do in database `instance`: read and update the platform's rows, and create a
-- schema of its own. {role} and {database} are quoted names.

GRANT CREATE ON DATABASE {database} TO {role};
GRANT SELECT, UPDATE ON instances, db_servers TO {role};
