"""The hosting platform's own parts: records, billing, database-service, and all of it on one machine."""
