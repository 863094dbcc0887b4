"""What the adapters that speak to PostgreSQL servers as their administrator share, one concern per module."""
