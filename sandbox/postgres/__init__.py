"""Private PostgreSQL servers, pools and tenants."""
