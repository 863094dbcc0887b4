"""The hosting platform's own parts: records, billing, database-service, and all of them on one machine."""
