"""The platform: its tables, and database-service."""
